"""Small GPT-2 directories as Hugging Face's transformers writes them."""

import json

import numpy as np

from aigc_jax.data.tokenizers.base import map_letters_to_bytes

SIZES = dict(n_embd=8, n_head=2, n_layer=2, n_positions=16)
# Tokens of training/test_gpt2_weights.GOLDEN: logits of transformers 5.23.0
# (GPT2LMHeadModel, float32) at the last position, ids 0 to 7.
TOKENS = [[3, 250, 17, 101, 258]]


def numbers(name, shape):
    """Deterministic weights: sines, keyed by the parameter's name."""
    key = sum(ord(c) * (i + 1) for i, c in enumerate(name)) % 97
    values = 0.4 * np.sin(np.arange(int(np.prod(shape))) * (0.37 + key / 97) + key).reshape(shape)
    return (values + ("ln_" in name and name.endswith("weight"))).astype(np.float32)


def shapes(vocabulary):
    d = SIZES["n_embd"]
    out = {
        "wte.weight": (vocabulary, d),
        "wpe.weight": (SIZES["n_positions"], d),
        "ln_f.weight": (d,),
        "ln_f.bias": (d,),
    }
    for i in range(SIZES["n_layer"]):
        for name, (a, b) in {
            "attn.c_attn": (d, 3 * d),
            "attn.c_proj": (d, d),
            "mlp.c_fc": (d, 4 * d),
            "mlp.c_proj": (4 * d, d),
        }.items():
            out |= {f"h.{i}.{name}.weight": (a, b), f"h.{i}.{name}.bias": (b,)}
        for name in ("ln_1", "ln_2"):
            out |= {f"h.{i}.{name}.weight": (d,), f"h.{i}.{name}.bias": (d,)}
    return out


def write_tokenizer(path):
    words = [*sorted(map_letters_to_bytes()), "th", "the", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    return len(words)


def write_directory(path):
    """Write a complete directory in the format of transformers."""
    from safetensors.numpy import save_file

    path.mkdir()
    size = write_tokenizer(path)
    save_file(
        {f"transformer.{name}": numbers(name, shape) for name, shape in shapes(size).items()},
        path / "model.safetensors",
    )
    (path / "config.json").write_text(
        json.dumps(SIZES | dict(vocab_size=size, model_type="gpt2", activation_function="gelu_new"))
    )
    return path


def logits(run, tokens):
    return np.asarray(
        run.programs.method.language.apply(run.state.params, np.array(tokens), None)[0]
    )

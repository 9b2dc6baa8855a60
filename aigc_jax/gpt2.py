"""GPT-2 (Radford et al. 2019) as Hugging Face's `transformers` stores it: a directory with config.json, model.safetensors and the
tokenizer's files. Read without pickle, and written so that `GPT2LMHeadModel.from_pretrained` loads it.

Its layers are those of `models.transformer.Decoder` with the fields of SAME: kernels lie as ours do, [in, out].
"""

import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.config import complete
from aigc_jax.data.gpt2 import write_tokenizer
from aigc_jax.errors import UserError, require
from aigc_jax.torch_files import safetensors

# The fields of a Decoder that GPT-2 has; its width, heads, layers and context are read.
SAME = dict(mlp="gelu", norm="layer", place="before", positions="learned", qk_norm=False, bias=True, tied=True, scan=False, remat=False,
            keep="nothing")
# What config.json must say, where it says it.
ASSUMED = dict(activation_function="gelu_new", layer_norm_epsilon=1e-5, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
               tie_word_embeddings=True, add_cross_attention=False)  # fmt: skip
# The names of a layer's parameters: theirs -> ours
LAYER = {
    f"{theirs}.{a}": f"{ours}/{b}"
    for theirs, ours, kernel in (
        ("ln_1", "norm_attention", "scale"), ("attn.c_attn", "attention/qkv", "kernel"), ("attn.c_proj", "attention/out", "kernel"),
        ("ln_2", "norm_feed_forward", "scale"), ("mlp.c_fc", "feed_forward/up", "kernel"), ("mlp.c_proj", "feed_forward/down", "kernel"),
    )
    for a, b in (("weight", kernel), ("bias", "bias"))
}  # fmt: skip
OUTER = {"wte.weight": "embed/embedding", "wpe.weight": "position/embedding", "ln_f.weight": "stack/last/scale", "ln_f.bias": "stack/last/bias"}


def names(layers: int) -> dict[str, str]:
    """{their name: our path below params/net}."""
    inner = {f"h.{i}.{theirs}": f"stack/layer_{i}/{ours}" for i in range(layers) for theirs, ours in LAYER.items()}
    return OUTER | inner


def is_directory(path) -> bool:
    """Does a directory hold weights of another library, and no run of ours?"""
    return (Path(path) / "model.safetensors").is_file() and (Path(path) / "config.json").is_file()


def read_model(path) -> dict:
    """The fields of the Decoder that a directory's config.json describes."""
    file = Path(path) / "config.json"
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        model = dict(width=int(given["n_embd"]), heads=int(given["n_head"]), layers=int(given["n_layer"]), context=int(given["n_positions"]))
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise UserError(f"{file} is no config.json of a GPT-2: {type(e).__name__} {e}") from None
    for key, value in ASSUMED.items():
        require(given.get(key, value) == value, f"{file}: {key} = {given.get(key)!r}, and only {value!r} can be read")
    inner = given.get("n_inner")
    return model | dict(kv_heads=model["heads"], hidden=inner or 4 * model["width"]) | SAME


def config(path) -> ConfigDict:
    """The least config that builds the network of a directory."""
    return complete(ConfigDict(dict(
        method="lm", steps=1, batch_size=1, network="transformer", smoothing=0.0, optimizer="adamw", model=read_model(path),
        schedule=dict(name="constant", warmup=0), hp=dict(lr=0.0, beta1=0.9, beta2=0.95, weight_decay=0.0, clip=1.0),
        data=dict(name="text", tokenizer="file", tokenizer_path=str(path)), run=dict(mesh=dict(trial=1, data=1), tensorboard=False),
    )))  # fmt: skip


def read_params(path, rows: int) -> dict[str, np.ndarray]:
    """{our path below params/net: array} of model.safetensors, the embedding filled up to `rows` rows with zeros."""
    file, layers = Path(path) / "model.safetensors", read_model(path)["layers"]
    theirs = safetensors(file)
    theirs = {name.removeprefix("transformer."): value for name, value in theirs.items()}
    out = {}
    for name, ours in names(layers).items():
        require(name in theirs, f"{file} has no {name}: it is no GPT-2 of {layers} layers")
        out[ours] = np.asarray(theirs[name], np.float32)
    table = out["embed/embedding"]
    require(table.ndim == 2 and len(table) <= rows, f"{file}: wte.weight is {table.shape} and the tokenizer's vocabulary takes {rows} rows")
    out["embed/embedding"] = np.concatenate([table, np.zeros((rows - len(table), table.shape[1]), np.float32)])
    return out


def write(path, model, params: dict[str, np.ndarray], tokenizer):
    """A directory for `transformers`. model: the Decoder's fields; params: {path below params/net: array}. Raises a UserError where the network
    is no GPT-2."""
    from safetensors.numpy import save_file

    for key, value in (SAME | dict(kv_heads=model.get("kv_heads", 0) and model["heads"])).items():
        if key not in ("scan", "remat", "keep"):
            require(model.get(key, value) == value, f"config.model.{key} = {model.get(key)!r}: a GPT-2 has {value!r}")
    require(not model.get("scan"), "config.model.scan = True: a GPT-2's layers lie one by one")
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    write_tokenizer(path, tokenizer)
    theirs = {name: np.ascontiguousarray(params[ours], np.float32) for name, ours in names(model["layers"]).items()}
    theirs["wte.weight"] = np.ascontiguousarray(theirs["wte.weight"][: tokenizer.size])
    save_file({f"transformer.{name}": value for name, value in theirs.items()}, path / "model.safetensors", metadata=dict(format="pt"))
    described = dict(
        model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=tokenizer.size, n_positions=model["context"], n_ctx=model["context"],
        n_embd=model["width"], n_head=model["heads"], n_layer=model["layers"], n_inner=model.get("hidden") or None,
        bos_token_id=tokenizer.end, eos_token_id=tokenizer.end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ASSUMED,
    )  # fmt: skip
    (path / "config.json").write_text(json.dumps(described, indent=1) + "\n")

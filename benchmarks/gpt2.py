"""GPT-2 against Hugging Face's transformers: the same logits, the same text, and how
fast each writes 256 tokens.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/gpt2.py check
    python benchmarks/gpt2.py [--case=gpt2_batch_1] [--rounds=5]

Weights are random, made on the spot. `check` writes a small model with transformers,
reads it here, writes it again and reads that with transformers: logits must agree to
1e-4, greedy text must be equal. The timing is of GPT-2's size (124 million parameters),
greedy, each side with its cache of keys and values; compiling is not timed.
"""

import json
import sys
import tempfile
from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent
PROMPT, NEW = 32, 256
NETWORK = dict(width=768, heads=12, layers=12, context=1024, vocabulary=50257)


def theirs(path, **sizes):
    """A GPT-2 of random weights as transformers writes it, with a tokenizer of bytes
    and a few merges.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from aigc_jax.data.tokenizers.base import map_letters_to_bytes

    words = [*sorted(map_letters_to_bytes()), "th", "the"]
    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate([*words, "<|endoftext|>"])})
    )
    (path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    torch.manual_seed(0)
    size = sizes.pop("vocab_size", len(words) + 1)
    net = GPT2LMHeadModel(
        GPT2Config(vocab_size=size, bos_token_id=size - 1, eos_token_id=size - 1, **sizes)
    ).eval()
    # Larger weights than at the start, or the text would be one token again and again.
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1).add_(0.02 * torch.randn_like(parameter))
    net.save_pretrained(path)
    return net


def compare_formats():
    """Print the difference of the logits, imported and exported again."""
    import numpy as np
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    import aigc_jax
    from aigc_jax.inference import generation
    from aigc_jax.methods.decoding import SamplingParams
    from aigc_jax.training import gpt2_weights
    from aigc_jax.training.serialization import flatten_state

    with tempfile.TemporaryDirectory() as folder:
        source, copy = Path(folder, "source"), Path(folder, "copy")
        net = theirs(source, n_positions=96, n_embd=64, n_head=4, n_layer=3)
        run = aigc_jax.load(source)
        tokens = np.random.RandomState(0).randint(0, run.tokenizer.size, (2, 80))
        ours = np.asarray(run.programs.method.language.apply(run.state.params, tokens, None)[0])[
            ..., : run.tokenizer.size
        ]
        with torch.no_grad():
            logits = net(torch.from_numpy(tokens)).logits.numpy()
        print(f"logits: difference {np.abs(ours - logits).max():.1e}, std {logits.std():.2f}")
        text = "the other thing: 世界 🙂"
        tokenizer = AutoTokenizer.from_pretrained(source)
        assert tokenizer(text)["input_ids"] == run.tokenizer.encode(text).tolist(), (
            "the tokenizers differ"
        )
        answer = generation.generate_continuations(run, [text], 60, SamplingParams(temperature=0))[
            0
        ]
        with torch.no_grad():
            prompt = torch.tensor([tokenizer(text)["input_ids"]])
            more = dict(
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                pad_token_id=net.config.eos_token_id,
            )
            out = net.generate(prompt, max_new_tokens=60, **more)
        new = out[0, prompt.shape[1] :].tolist()
        reply = run.tokenizer.decode(
            new[: new.index(run.tokenizer.end)] if run.tokenizer.end in new else new
        )
        print(f"greedy text of 60 tokens equal: {answer in (reply, reply.rstrip(chr(0xFFFD)))}")
        gpt2_weights.write_model_directory(
            copy, run.config.model.to_dict(), flatten_state(run.state.params["net"]), run.tokenizer
        )
        again = GPT2LMHeadModel.from_pretrained(copy).eval()
        with torch.no_grad():
            print(
                "written and read by transformers: difference "
                f"{np.abs(again(torch.from_numpy(tokens)).logits.numpy() - logits).max():.1e}"
            )
        assert (
            AutoTokenizer.from_pretrained(copy)(text)["input_ids"] == tokenizer(text)["input_ids"]
        ), "the tokenizers differ after writing"


def check(case):
    """{what: (ours, transformers')} of the same small network: the loss of random
    tokens, and the number of greedy tokens before the end, which must be equal texts.
    """
    import jax
    import numpy as np
    import torch

    import aigc_jax
    from aigc_jax.methods.decoding import SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        net = theirs(Path(folder, "gpt2"), n_positions=96, n_embd=64, n_head=4, n_layer=3)
        run = aigc_jax.load(Path(folder, "gpt2"))
        size = run.tokenizer.size
        prompts = np.random.RandomState(0).randint(0, size - 1, (sizes(case), 20))
        logits = run.programs.method.language.apply(run.state.params, prompts, None)[0]
        more = dict(attention_mask=torch.ones(prompts.shape), pad_token_id=size - 1)
        with torch.no_grad():
            their_logits = net(torch.from_numpy(prompts)).logits.numpy()
            made = net.generate(
                torch.from_numpy(prompts), max_new_tokens=60, do_sample=False, **more
            ).numpy()
        greedy = run.decoders.find(SamplingParams(temperature=0))
        parts = list(greedy.stream_tokens(list(prompts), 60, jax.random.key(0)))
    log_p = lambda x: x - np.logaddexp.reduce(x, -1, keepdims=True)
    nats = lambda x: -np.take_along_axis(log_p(x[:, :-1]), prompts[:, 1:, None], -1).mean()
    # Tokens until each text ends; -1 is what follows.
    own, made = np.concatenate(parts, 1), made[:, prompts.shape[1] :]
    made = np.where(np.cumsum(made == size - 1, 1) > 0, -1, made)
    own = [row[row >= 0].tolist() for row in own]
    assert own == [row[row >= 0].tolist() for row in made], "the greedy texts differ"
    return dict(
        nats=(float(nats(np.asarray(logits)[..., :size])), float(nats(their_logits))),
        greedy_tokens=(sum(map(len, own)), int((made >= 0).sum())),
    )


def sizes(case):
    return int(case.rsplit("_", 1)[1])


def make_prompts(case):
    import numpy as np

    return np.random.RandomState(0).randint(0, NETWORK["vocabulary"], (sizes(case), PROMPT))


def ours(case):
    """A function that writes NEW tokens after PROMPT ones, n times."""
    import jax
    import numpy as np

    from aigc_jax.methods.decoding import SamplingParams
    from aigc_jax.methods.text_decoder import TextDecoder
    from aigc_jax.models.transformer import Decoder

    net = Decoder(**NETWORK)
    params = jax.jit(net.init)(jax.random.key(0), np.zeros((1, 4), np.int32))
    writer = TextDecoder(
        lambda params, tokens, carry: net.apply(params, tokens, carry),
        net,
        params,
        SamplingParams(temperature=0),
        ends=(),
    )
    prompts = make_prompts(case)

    def steps(n):
        for _ in range(n):
            assert sum(
                (part >= 0).sum()
                for part in writer.stream_tokens(list(prompts), NEW, jax.random.key(0))
            ) == NEW * sizes(case)

    return steps


def transformers(case, **more):
    """The same on PyTorch's default device. more: arguments of `generate`."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    names = dict(n_embd="width", n_head="heads", n_layer="layers", n_positions="context")
    config = {name: NETWORK[own] for name, own in names.items()}
    end = NETWORK["vocabulary"] - 1
    net = GPT2LMHeadModel(
        GPT2Config(**config, vocab_size=end + 1, bos_token_id=end, eos_token_id=end)
    ).eval()
    prompts = torch.from_numpy(make_prompts(case)).to(torch.get_default_device())
    more = more | dict(
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        use_cache=True,
        pad_token_id=end,
    )

    def steps(n):
        with torch.no_grad():
            for _ in range(n):
                assert net.generate(prompts, **more).shape == (sizes(case), PROMPT + NEW)

    return steps


SIDES = {"ours": ours, "pytorch_transformers": transformers}
CASES = {
    "gpt2_batch_1": (
        f"GPT-2 124M, {NEW} tokens after {PROMPT}, batch 1: milliseconds a text",
        tuple(SIDES),
    ),
    "gpt2_batch_8": (
        f"GPT-2 124M, {NEW} tokens after {PROMPT}, batch 8: milliseconds a batch",
        tuple(SIDES),
    ),
}

if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        compare_formats()
    else:
        turns.main(__file__, __doc__, CASES, SIDES, check)

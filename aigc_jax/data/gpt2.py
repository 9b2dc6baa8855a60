"""The tokenizer files of a GPT-2 directory: vocab.json and merges.txt, or tokenizer.json, as Hugging Face's `transformers` writes them."""

import json
from pathlib import Path

from aigc_jax.data.tokenizers import SPECIALS, Tokenizer, from_plain
from aigc_jax.errors import UserError, require

END = SPECIALS[0]


def read_tokenizer(path: Path) -> Tokenizer:
    """The byte-level BPE of a directory. Raises a UserError where its files are missing, damaged or of another kind."""
    file = path / "vocab.json" if (path / "vocab.json").is_file() else path / "tokenizer.json"
    try:
        if file.name == "vocab.json":
            numbers = json.loads(file.read_text(encoding="utf-8"))
            lines = (path / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        else:
            model = json.loads(file.read_text(encoding="utf-8"))["model"]
            numbers = dict(model["vocab"])
            merges = [m.split(" ") if isinstance(m, str) else list(m) for m in model["merges"]]
        numbers.setdefault(END, len(numbers))
        order = sorted(numbers, key=numbers.get)
        require([numbers[word] for word in order] == list(range(len(order))), "its numbers have gaps")
        specials = [word for word in SPECIALS if word in numbers]
        require(order[-len(specials) :] == specials, f"{', '.join(specials)} must be the last of its vocabulary")
        return from_plain(dict(kind="bpe", known=order[: -len(specials)], merges=merges, specials=len(specials)))
    except UserError as e:
        raise UserError(f"{file} holds no GPT-2 tokenizer: {e}") from None
    except Exception as e:  # a damaged file is damaged in many ways
        reason = str(e).splitlines()[0][:100] if str(e) else type(e).__name__
        raise UserError(f"{file} cannot be read as a tokenizer: {reason}") from None


def write_tokenizer(path: Path, tokenizer: Tokenizer):
    """vocab.json and merges.txt of a byte-level BPE, for `transformers.GPT2Tokenizer`."""
    require(tokenizer.kind == "bpe", f"a GPT-2 directory holds byte-level BPE, and the run's tokenizer is of {tokenizer.kind}")
    words = [*tokenizer.plain["known"], *SPECIALS[: tokenizer.size - len(tokenizer.plain["known"])]]
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.plain["merges"])]
    (path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

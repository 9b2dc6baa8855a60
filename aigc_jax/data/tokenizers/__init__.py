"""Tokenizers: text to integers and back, by bytes, characters, words or byte-level BPE.

A new tokenizer is a function and a line in TOKENIZERS.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.data.tokenizers.bpe import bpe, make_bpe
from aigc_jax.data.tokenizers.words import (
    bytes_,
    characters,
    make_bytes,
    make_characters,
    make_words,
    words,
)
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, choose, first_line, nearest, require
from aigc_jax.utils.files import expand_user, find_obstacle, require_regular


def from_plain(plain: dict) -> Tokenizer:
    """Return the tokenizer of a description; an invalid one may raise any exception."""
    return MAKERS[plain["kind"]](plain)


def from_json(text: str) -> Tokenizer:
    """Return the tokenizer of a text, as the inverse of `to_json`; raise a UserError
    if the text is not a tokenizer.
    """
    try:
        return _checked(json.loads(text))
    except ValueError as e:
        raise UserError(f"this is not a tokenizer.json of aigc_jax: {e}") from None


def _checked(plain) -> Tokenizer:
    try:
        return from_plain(plain)
    except Exception as e:
        raise UserError(f"this is not a tokenizer.json of aigc_jax: {first_line(e, 100)}") from None


def write(path: str | Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer to a file, which `read` reads."""
    documents.write(Path(path), json.loads(tokenizer.to_json()), "tokenizer.json")


def read(path: str | Path) -> Tokenizer:
    """Return the tokenizer in a file; raise a UserError where the file is missing or
    damaged.
    """
    path = Path(path)
    if find_obstacle(path) == "no such file":
        known = [p.name for p in path.parent.glob("*.json")]
        raise UserError(f"{path}: no such file{nearest(path.name, known)}")
    require_regular(path)
    plain = documents.read(path, "tokenizer.json")
    try:
        return _checked(plain)
    except UserError as e:
        raise UserError(f"{path} is damaged: {e}") from None


def make_library(plain: dict) -> Tokenizer:
    """Return a tokenizer by the library `tokenizers`: `data.tokenizers.huggingface`."""
    from aigc_jax.data.tokenizers import huggingface

    return huggingface.make_tokenizer(plain)


MAKERS = {
    "bytes": make_bytes,
    "characters": make_characters,
    "words": make_words,
    "chinese_words": make_words,
    "bpe": make_bpe,
    "library": make_library,
}


def file(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer at config.tokenizer_path: a tokenizer.json, the directory of
    a run, or a GPT-2 directory.
    """
    require(
        config.tokenizer_path != "",
        "config.data.tokenizer_path = '' must name a tokenizer.json or a run directory for "
        "config.data.tokenizer = 'file'",
    )
    path = expand_user(config.tokenizer_path)
    from aigc_jax.data.tokenizers import gpt2

    if gpt2.has_tokenizer(path):
        return gpt2.read_tokenizer(path)
    return read(path / "assets" / "tokenizer.json" if path.is_dir() else path)


# config.data.tokenizer -> (texts, config.data) -> Tokenizer
TOKENIZERS = {
    "bytes": bytes_,
    "characters": characters,
    "words": words,
    "chinese_words": words,
    "bpe": bpe,
    "file": file,
}


def fitted_part(splits: dict[str, list], config: ConfigDict) -> list:
    """Return the examples that a tokenizer is fit to: the training split, or all splits
    for characters, because a held-out character needs a number too.
    """
    return sum(splits.values(), []) if config.tokenizer == "characters" else splits["train"]


def build(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer that config.tokenizer names, fit to the texts.

    Args:
      texts: the training texts; unused where the tokenizer is read from a file.
      config: the `data` section of a config.
    """
    return choose(TOKENIZERS, config.tokenizer, "config.data.tokenizer")(texts, config)

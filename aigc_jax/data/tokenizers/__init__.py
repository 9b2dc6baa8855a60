"""Tokenizers: text to integers and back, by bytes, characters, words or byte-level BPE.

A new tokenizer is a function and a line in TOKENIZERS. The functions in TOKENIZERS have
the arguments of `build`; those in MAKERS return the tokenizer of a description,
`Tokenizer.description`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.data.tokenizers.bpe import fit_bpe, make_bpe
from aigc_jax.data.tokenizers.words import (
    fit_bytes,
    fit_characters,
    fit_words,
    make_bytes,
    make_characters,
    make_words,
)
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError, choose, first_line, format_suggestion, require
from aigc_jax.utils.files import expand_user, require_regular_file, why_not_regular


def from_description(description: dict) -> Tokenizer:  # `Tokenizer.description`
    """Return the tokenizer of a description; an invalid one may raise any exception."""
    return MAKERS[description["kind"]](description)


def from_json(text: str) -> Tokenizer:  # `Tokenizer.to_json()`
    """Return the tokenizer of a text, as the inverse of `to_json`; raise a UserError
    if the text is not a tokenizer.
    """
    try:
        return _from_untrusted(json.loads(text))
    except ValueError as e:
        raise UserError(f"this is not a tokenizer.json of aigc_jax: {e}") from None


def _from_untrusted(description: Any) -> Tokenizer:
    """Return the tokenizer of a description; raise a UserError for an invalid one."""
    try:
        return from_description(description)
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
    if why_not_regular(path) == "no such file":
        known = [p.name for p in path.parent.glob("*.json")]
        raise UserError(f"{path}: no such file{format_suggestion(path.name, known)}")
    require_regular_file(path)
    description = documents.read(path, "tokenizer.json")
    try:
        return _from_untrusted(description)
    except UserError as e:
        raise UserError(f"{path} is damaged: {e}") from None


def make_library_tokenizer(description: dict) -> Tokenizer:
    """Return a tokenizer by the library `tokenizers`: `data.tokenizers.huggingface`."""
    from aigc_jax.data.tokenizers import huggingface

    return huggingface.make_tokenizer(description)


MAKERS = {
    "bytes": make_bytes,
    "characters": make_characters,
    "words": make_words,
    "chinese_words": make_words,
    "bpe": make_bpe,
    "library": make_library_tokenizer,
}


def read_configured_file(_texts: Iterable[str], config: ConfigDict) -> Tokenizer:
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

    if gpt2.has_tokenizer_files(path):
        return gpt2.read_tokenizer(path)
    return read(path / "assets" / "tokenizer.json" if path.is_dir() else path)


# config.data.tokenizer -> (texts, config.data) -> Tokenizer
TOKENIZERS = {
    "bytes": fit_bytes,
    "characters": fit_characters,
    "words": fit_words,
    "chinese_words": fit_words,
    "bpe": fit_bpe,
    "file": read_configured_file,
}


def select_examples_to_fit(splits: dict[str, list], config: ConfigDict) -> list:
    """Return the examples that a tokenizer is fit to: the training split, or all splits
    for characters, because a held-out character needs a number too.

    Args:
      splits: {split: examples of any kind}.
      config: the `data` section of a config.
    """
    return sum(splits.values(), []) if config.tokenizer == "characters" else splits["train"]


def build(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer that config.tokenizer names, fit to the texts.

    Args:
      texts: the training texts; unused where the tokenizer is read from a file.
      config: the `data` section of a config.
    """
    return choose(TOKENIZERS, config.tokenizer, "config.data.tokenizer")(texts, config)

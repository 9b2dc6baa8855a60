"""Tokenizers: text to integers and back, by bytes, characters, words or byte-level BPE.

A new tokenizer is a function with the arguments of `build`, and a line in TOKENIZERS.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ml_collections import ConfigDict

from aigc_jax.data.tokenizers import huggingface
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.data.tokenizers.bpe import fit_bpe, fit_bytes
from aigc_jax.data.tokenizers.chinese import compare_with_jieba, fit_chinese_words
from aigc_jax.data.tokenizers.words import fit_characters, fit_words
from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_warning

T = TypeVar("T")


def read_configured_file(_texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer at config.tokenizer_path: a tokenizer.json, the directory of
    a run, or a directory of Hugging Face's files.
    """
    require(
        config.tokenizer_path != "",
        "config.data.tokenizer_path = '' must name a tokenizer.json or a run directory for "
        "config.data.tokenizer = 'file'",
    )
    return huggingface.read(config.tokenizer_path)


# config.data.tokenizer -> (texts, config.data) -> Tokenizer
TOKENIZERS = {
    "bytes": fit_bytes,
    "characters": fit_characters,
    "words": fit_words,
    "chinese_words": fit_chinese_words,
    "bpe": fit_bpe,
    "file": read_configured_file,
}
# config.data.tokenizer -> (tokenizer, held-out texts) -> how it differs from its model
COMPARISONS = {"chinese_words": compare_with_jieba}


def select_examples_to_fit(splits: Mapping[str, Iterable[T]], config: ConfigDict) -> Iterable[T]:
    """Return the examples that a tokenizer is fit to: the training split, or all splits
    for characters, because a held-out character needs a number too.

    Args:
      splits: {split: examples of any kind}.
      config: the `data` section of a config.
    """
    if config.tokenizer == "characters":
        return itertools.chain.from_iterable(splits.values())
    return splits["train"]


def build(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer that config.tokenizer names, fit to the texts.

    Args:
      texts: the training texts; unused where the tokenizer is read from a file.
      config: the `data` section of a config.
    """
    return choose(TOKENIZERS, config.tokenizer, "config.data.tokenizer")(texts, config)


def compare(tokenizer: Tokenizer, texts: Iterable[str], config: ConfigDict) -> str:
    """Return, and print to stderr, how a newly fit tokenizer differs from its model,
    where it has one in COMPARISONS; else "".

    Args:
      tokenizer: made by `build`.
      texts: held-out texts.
      config: the `data` section of a config.
    """
    if config.tokenizer not in COMPARISONS:
        return ""
    difference = COMPARISONS[config.tokenizer](tokenizer, texts)
    print_warning(f"{config.tokenizer}: {difference}")
    return difference

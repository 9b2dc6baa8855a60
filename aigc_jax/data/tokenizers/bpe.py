"""Byte-level BPE."""

import functools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.base import (
    BYTES,
    SPECIALS,
    Tokenizer,
    encode_utf8,
    make_tokenizer_with_specials,
    max_vocabulary_size,
    read_vocabulary,
)
from aigc_jax.data.tokenizers.splitters import LONGEST
from aigc_jax.utils.errors import require

# Training divides runs of letters, digits, other signs or blanks after 1024 characters,
# because its time grows with the square of a word's length (unlike that of encoding).
# Ordinary text has no such words.
LONG_RUNS = "|".join(rf"{kind}{{1024}}" for kind in (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s"))


@functools.cache
def map_letters_to_bytes() -> dict[str, int]:
    """Return {letter: byte} of byte-level BPE, which writes a printable byte as itself
    and any other as the next letter from U+0100 on.
    """
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(BYTES) if b not in prints]
    return {chr(b): b for b in prints} | {chr(0x100 + i): b for i, b in enumerate(others)}


def use_byte_level_words(library: Any) -> Any:  # the same tokenizer, modified
    """Return the library's tokenizer with GPT-2's pre-tokenizer, which splits a text
    into words and writes bytes as letters; no space is prepended.
    """
    from tokenizers import pre_tokenizers

    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return library


def make_bpe(description: dict) -> Tokenizer:
    """Return a tokenizer whose tokens are runs of bytes, merged from single bytes in
    the order of `merges` (Sennrich et al. 2016; on bytes: Radford et al. 2019).

    `specials` is the number of special tokens; the tokenizer of GPT-2 has one, or none.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    words, letters = read_vocabulary(description), map_letters_to_bytes()
    require(set(letters) <= set(words), "its vocabulary lacks a byte")
    pieces = [bytes(letters[letter] for letter in word) for word in words]
    merges = [(left, right) for left, right in description["merges"]]
    library = use_byte_level_words(
        Library(models.BPE({word: i for i, word in enumerate(words)}, merges))
    )
    encode = lambda text: np.array(library.encode(encode_utf8(text).decode()).ids, np.int32)
    specials = description.get("specials", len(SPECIALS))
    require(specials in range(len(SPECIALS) + 1), f"specials = {specials!r} is none of 0, 1, 2")
    return make_tokenizer_with_specials("bpe", pieces, encode, description, num_specials=specials)


def fit_bpe(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Train byte-level BPE on the texts: all bytes, then merges of the most frequent
    pairs, up to config.vocabulary tokens.
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Library

    size = max_vocabulary_size(config, BYTES + len(SPECIALS)) - len(SPECIALS)
    library = use_byte_level_words(Library(models.BPE()))
    cut = pre_tokenizers.Split(Regex(LONG_RUNS), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, library.pre_tokenizer])
    library.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=sorted(map_letters_to_bytes()),
            max_token_length=LONGEST,
            show_progress=False,
        ),
    )
    model = json.loads(library.to_str())["model"]
    return make_bpe(
        dict(
            kind="bpe", known=sorted(model["vocab"], key=model["vocab"].get), merges=model["merges"]
        )
    )

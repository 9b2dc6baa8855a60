"""Tokenizers by bytes, characters or words."""

from collections import Counter
from collections.abc import Iterable

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
from aigc_jax.data.tokenizers.splitters import SPLITTERS
from aigc_jax.utils.errors import UserError, require

UNKNOWN = "\ufffd".encode()  # the text of <unk>


def make_bytes(description: dict) -> Tokenizer:
    """Return a tokenizer whose tokens are bytes of UTF-8."""
    encode = lambda text: np.frombuffer(encode_utf8(text), np.uint8).astype(np.int32)
    return make_tokenizer_with_specials(
        "bytes", [bytes([i]) for i in range(BYTES)], encode, description
    )


def make_characters(description: dict) -> Tokenizer:
    """Return a tokenizer whose tokens are code points. To encode a code point that is
    not in the vocabulary yields <unk>, or raises a UserError without <unk>.
    """
    characters = read_vocabulary(description)
    n, other = len(characters), bool(description["unknown"])
    table = np.full(0x110000, n if other else -1, np.int32)
    table[[ord(c) for c in characters]] = np.arange(n)

    def encode(text):
        codes = np.frombuffer(encode_utf8(text).decode().encode("utf-32-le"), np.uint32)
        ids = table[codes]
        if not other and ids.min(initial=0) < 0:
            c = chr(codes[np.argmin(ids)])
            raise UserError(
                f"the character {c!r} (U+{ord(c):04X}) is none of the tokenizer's {n:,}; "
                "use a tokenizer with <unk> or with all bytes"
            )
        return ids

    loses = f"characters other than its {n:,}, " + (
        "which become <unk>" if other else "which are refused"
    )
    pieces = [c.encode() for c in characters] + [UNKNOWN] * other
    return make_tokenizer_with_specials(
        "characters", pieces, encode, description, loses, n if other else None
    )


def make_words(description: dict) -> Tokenizer:
    """Return a tokenizer of the words by SPLITTERS; unknown words are <unk>."""
    words, split = read_vocabulary(description), SPLITTERS[description["kind"]]
    n = len(words)
    number = {word: i for i, word in enumerate(words)}
    encode = lambda text: np.array(
        [number.get(piece, n) for piece in split(encode_utf8(text).decode())], np.int32
    )
    pieces = [word.encode() for word in words] + [UNKNOWN]
    loses = f"words other than its {n:,}, which become <unk>"
    return make_tokenizer_with_specials(description["kind"], pieces, encode, description, loses, n)


def fit_bytes(_texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer of the 256 bytes; the texts are unused."""
    size = BYTES + len(SPECIALS)
    require(
        config.vocabulary in (0, size),
        f"config.data.vocabulary = {config.vocabulary} must be 0 or {size} for "
        "config.data.tokenizer = 'bytes'",
    )
    return make_bytes(dict(kind="bytes"))


def most_frequent(counts: Counter, n: int) -> list[str]:
    """Return the n most frequent words, equally frequent ones in alphabetical order."""
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]


def fit_characters(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return a tokenizer of all characters of the texts, sorted by code point; with
    config.vocabulary, of the most frequent characters and <unk>.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    n = max_vocabulary_size(config, 4) - 1 - len(SPECIALS) if config.vocabulary else len(counts)
    return make_characters(
        dict(
            kind="characters", known=sorted(most_frequent(counts, n)), unknown=config.vocabulary > 0
        )
    )


def fit_words(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return a tokenizer of the most frequent words of the texts, and <unk>."""
    size = max_vocabulary_size(config, 4)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(SPLITTERS[config.tokenizer](text))
    return make_words(
        dict(kind=config.tokenizer, known=most_frequent(counts, size - 1 - len(SPECIALS)))
    )

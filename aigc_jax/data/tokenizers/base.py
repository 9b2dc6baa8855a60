"""Tokenizers: text to whole numbers and back, by bytes, characters, words or byte-level
BPE.

Each is a plain description, which is what its JSON holds, and the functions that MAKERS
gives it. Files are untrusted: they hold vocabularies, never code. A lone surrogate,
which is no text and has no UTF-8, is read as "?" by all of them.
"""

import codecs
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.utils.errors import require

# The last two tokens, but for another library's files; no text is encoded to them.
SPECIALS = ("<|endoftext|>", "<|mask|>")
BYTES = 256
DEFAULT = 10_000  # tokens of words and BPE for config.data.vocabulary = 0


Ids = np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """`decode(encode(text)) == text`, but for what `loses` says."""

    kind: str
    pieces: list[bytes]  # what each token stands for; b"" of a special one
    encode: Callable[[str], np.ndarray]  # text -> int32 [L]
    plain: dict  # JSON: all that makes it
    loses: str = "nothing"
    unknown: int | None = None
    end: int | None = None  # the token that ends a text
    mask: int | None = None  # the token that hides another

    @property
    def size(self) -> int:
        """The number of tokens, special ones included."""
        return len(self.pieces)

    def decode(self, ids: Ids) -> str:
        """The text of tokens; bytes that are no UTF-8 show as U+FFFD. Numbers below 0
        are no tokens.
        """
        return self.joined(ids).decode("utf-8", "replace")

    def text(self, ids: Ids) -> str:
        """The text before the first end."""
        ids = np.asarray(ids)
        ends = np.flatnonzero(ids == (-1 if self.end is None else self.end))
        return self.decode(ids[: ends[0]] if len(ends) else ids)

    def joined(self, ids: Ids) -> bytes:
        """Return the bytes of the tokens in a row; numbers below 0 are skipped."""
        return b"".join(self.pieces[i] for i in np.asarray(ids).ravel().tolist() if i >= 0)

    def stream(self) -> Callable:
        """(ids, final=False) -> the characters that these tokens complete. A part of
        one is held back until it is whole; the last call says `final`, and what is left
        of one shows as U+FFFD. All that comes is what `decode` gives at once.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda ids, final=False: decoder.decode(self.joined(ids), final)

    @functools.cached_property
    def sizes(self) -> np.ndarray:  # -> uint8 [size, 2]
        """Characters and UTF-8 bytes of each token, which add up to those of a text: a
        character counts where it begins. An unknown token counts as one of each, for
        its text is not known.
        """
        starts = [sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces]
        out = (
            np.array([starts, [len(piece) for piece in self.pieces]])
            .T.clip(max=255)
            .astype(np.uint8)
        )
        if self.unknown is not None:
            out[self.unknown] = 1
        return out

    def to_json(self) -> str:
        """Return the description as JSON, always the same text for it."""
        return json.dumps(self.plain, sort_keys=True)

    @property
    def sha256(self) -> str:
        """The SHA-256 of `to_json`, by which tokenizers are told apart."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


# From the plain description to the tokenizer.


def utf8(text: str) -> bytes:
    """Return the UTF-8 of a text, with "?" for every lone surrogate."""
    return text.encode("utf-8", "replace")


def known(plain: dict) -> list[str]:
    """The vocabulary of a description, checked."""
    words = list(plain["known"])
    require(
        all(isinstance(word, str) and word for word in words),
        "its vocabulary holds something else than text",
    )
    require(len(set(words)) == len(words), "its vocabulary holds a token twice")
    return words


def with_specials(
    kind: str,
    pieces: list[bytes],
    encode: Callable[[str], np.ndarray],
    plain: dict,
    loses: str = "nothing",
    unknown: int | None = None,
    *,
    count: int = 2,
) -> Tokenizer:
    """A tokenizer with the first `count` of SPECIALS after its pieces."""
    end, mask = (len(pieces) + i if count > i else None for i in range(2))
    return Tokenizer(kind, pieces + [b""] * count, encode, plain, loses, unknown, end, mask)


# From texts to a tokenizer.


def limit(config: ConfigDict, least: int) -> int:
    """The most tokens that config.data.vocabulary allows."""
    size = config.vocabulary
    require(
        size == 0 or size >= least,
        f"config.data.vocabulary = {size} must be 0 or at least {least} for "
        f"config.data.tokenizer = {config.tokenizer!r}",
    )
    return size or DEFAULT

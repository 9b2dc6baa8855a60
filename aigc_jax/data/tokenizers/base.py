"""The interface of a tokenizer, and functions that its implementations share.

A tokenizer consists of a description, stored as JSON, and of the functions that
MAKERS constructs from the description. Files are untrusted: they contain vocabularies,
never code. All tokenizers read a lone surrogate, which has no UTF-8 encoding, as "?".
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

# The last two tokens, except in files of other libraries; no text is encoded to them.
SPECIALS = ("<|endoftext|>", "<|mask|>")
BYTES = 256
DEFAULT = 10_000  # tokens of words and BPE for config.data.vocabulary = 0


Ids = np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer, with `decode(encode(text)) == text` except for the losses that
    `loses` describes.
    """

    kind: str
    pieces: list[bytes]  # the bytes of each token; b"" for a special token
    encode: Callable[[str], np.ndarray]  # text -> int32 [L]
    description: dict  # a JSON object that defines the tokenizer
    loses: str = "nothing"
    unknown: int | None = None  # the token of unknown pieces
    end: int | None = None  # the token that ends a text
    mask: int | None = None  # the mask token

    @property
    def size(self) -> int:
        """The size of the vocabulary, special tokens included."""
        return len(self.pieces)

    def decode(self, ids: Ids) -> str:
        """Return the text of tokens. Invalid UTF-8 is replaced by U+FFFD; numbers below
        0 are skipped.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_until_end(self, ids: Ids) -> str:
        """Return the text before the first end token."""
        ids = np.asarray(ids)
        ends = np.flatnonzero(ids == (-1 if self.end is None else self.end))
        return self.decode(ids[: ends[0]] if len(ends) else ids)

    def decode_bytes(self, ids: Ids) -> bytes:
        """Return the concatenated bytes of tokens; numbers below 0 are skipped."""
        return b"".join(self.pieces[i] for i in np.asarray(ids).ravel().tolist() if i >= 0)

    def make_stream_decoder(self) -> Callable[..., str]:  # (ids, final=False) -> new text
        """Return an incremental decoder (ids, final=False) -> the characters that these
        tokens complete.

        An incomplete character is buffered until later tokens complete it, or until
        the last call, with `final`, replaces it by U+FFFD. The concatenated results
        equal `decode` of all tokens.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda ids, final=False: decoder.decode(self.decode_bytes(ids), final)

    @functools.cached_property
    def token_sizes(self) -> np.ndarray:  # -> uint8 [size, 2]: characters, bytes
        """The number of characters and of UTF-8 bytes of each token, whose sums are
        those of the text: a character counts for the token in which it begins. An
        unknown token counts as one of each, because its text is not known.
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
        """Return the description as JSON, deterministically."""
        return json.dumps(self.description, sort_keys=True)

    @property
    def sha256(self) -> str:
        """The SHA-256 of `to_json`, which identifies the tokenizer."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


# From the description to the tokenizer.


def encode_utf8(text: str) -> bytes:  # lone surrogates: "?"
    """Return a text in UTF-8, with every lone surrogate replaced by "?"."""
    return text.encode("utf-8", "replace")


def read_vocabulary(description: dict) -> list[str]:
    """Return the vocabulary of a description; raise a UserError where it is invalid."""
    words = list(description["known"])
    require(
        all(isinstance(word, str) and word for word in words),
        "its vocabulary has an entry that is empty or not a string",
    )
    require(len(set(words)) == len(words), "its vocabulary has a duplicate token")
    return words


def make_tokenizer_with_specials(
    kind: str,
    pieces: list[bytes],
    encode: Callable[[str], np.ndarray],
    description: dict,
    loses: str = "nothing",
    unknown: int | None = None,
    *,
    num_specials: int = 2,
) -> Tokenizer:
    """Return a tokenizer with the first `num_specials` of SPECIALS after its pieces.

    Args:
      kind: `Tokenizer.kind`.
      pieces: the bytes of each token but the special ones.
      encode: text -> int32 [L].
      description: `Tokenizer.description`.
      loses: what encoding and decoding a text loses.
      unknown: the token of unknown pieces; None without one.
      num_specials: the number of special tokens: 1 for an end token, 2 for a mask token
        too, 0 for none.
    """
    end, mask = (len(pieces) + i if num_specials > i else None for i in range(2))
    return Tokenizer(
        kind, pieces + [b""] * num_specials, encode, description, loses, unknown, end, mask
    )


# From texts to a tokenizer.


def max_vocabulary_size(config: ConfigDict, min_size: int) -> int:
    """Return the most tokens that config.data.vocabulary allows; raise a UserError
    where that is fewer than `min_size`.

    Args:
      config: the `data` section of a config; vocabulary 0 allows DEFAULT tokens.
      min_size: the fewest tokens that the tokenizer needs.
    """
    size = config.vocabulary
    require(
        size == 0 or size >= min_size,
        f"config.data.vocabulary = {size} must be 0 or at least {min_size} for "
        f"config.data.tokenizer = {config.tokenizer!r}",
    )
    return size or DEFAULT

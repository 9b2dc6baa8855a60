"""The tokenizer of a text: a file tokenizer.json of the library `tokenizers`.

All tokenizers are such files, so that any tool of that library's ecosystem reads them.
The library encodes and decodes; this module adds the tokens that end and mask a text,
the sizes of tokens, decoding of a stream, and errors of one line.

Ids and texts are those of the library, with two exceptions: the name of a special token
within a text is text here and the special token there; and a lone surrogate, which has
no UTF-8 encoding, is read as "?".
"""

import codecs
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.checks import check_tokenizer, convert_library_errors, parse_library
from aigc_jax.data.tokenizers.segments import CHARACTERS, divide_text, has_separable_words
from aigc_jax.utils.errors import UserError, require

# The last two tokens, except in files of other programs.
SPECIALS = ("<|endoftext|>", "<|mask|>")
UNKNOWN = "<unk>"
BYTES = 256
DEFAULT = 10_000  # tokens of words and BPE for config.data.vocabulary = 0
BATCH = 2**20  # characters that are encoded at once, in parallel

Ids = np.ndarray | Sequence[int]


@functools.cache
def map_letters_to_bytes() -> dict[str, int]:
    """Return {letter: byte} of byte-level tokenizers, which write a printable byte as
    itself and any other as the next letter from U+0100 on.
    """
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(BYTES) if b not in prints]
    return {chr(b): b for b in prints} | {chr(0x100 + i): b for i, b in enumerate(others)}


def encode_utf8(text: str) -> bytes:  # lone surrogates: "?"
    """Return a text in UTF-8, with every lone surrogate replaced by "?"."""
    return text.encode("utf-8", "replace")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer, with `decode(encode(text)) == text` except for the losses that
    `loses` describes.

    Raises:
      UserError: `json` is not a tokenizer.json, or the tokenizer is not supported:
        `checks.check_tokenizer`.
    """

    json: str  # contents of tokenizer.json
    end_token: str | None = None  # the special token that ends a text
    mask_token: str | None = None  # the special token that masks others

    def __post_init__(self) -> None:
        check_tokenizer(self.library, self.contents)
        for name in filter(None, (self.end_token, self.mask_token)):
            require(
                self.library.token_to_id(name) in self.special_ids, f"{name!r} is no special token"
            )

    @functools.cached_property
    def contents(self) -> dict[str, Any]:
        """The JSON object of tokenizer.json, with every part of it."""
        return json.loads(self.library.to_str())

    @functools.cached_property
    def library(self) -> Any:
        """The tokenizer as a `tokenizers.Tokenizer`."""
        return parse_library(self.json)

    @property
    def files(self) -> dict[str, str]:  # {name: contents}
        """The files that AutoTokenizer of transformers reads. `from_files` is the
        inverse.
        """
        names = dict(eos_token=self.end_token, mask_token=self.mask_token)
        settings: dict[str, Any] = {key: name for key, name in names.items() if name is not None}
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        settings["clean_up_tokenization_spaces"] = False
        return {
            "tokenizer.json": self.json,
            "tokenizer_config.json": json.dumps(settings, indent=1) + "\n",
        }

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the two files' contents, one after the other, which identifies
        the tokenizer.
        """
        return hashlib.sha256("".join(self.files.values()).encode()).hexdigest()

    @property
    def kind(self) -> str:
        """The library's name of the model: BPE, WordLevel, WordPiece or Unigram."""
        return type(self.library.model).__name__

    @property
    def size(self) -> int:
        """The size of the vocabulary, special tokens included."""
        return self.library.get_vocab_size()

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of the special tokens, which have no text."""
        tokens = self.library.get_added_tokens_decoder()
        return frozenset(i for i, token in tokens.items() if token.special)

    @functools.cached_property
    def end(self) -> int | None:
        """The id of the token that ends a text."""
        return None if self.end_token is None else self.library.token_to_id(self.end_token)

    @functools.cached_property
    def mask(self) -> int | None:
        """The id of the mask token."""
        return None if self.mask_token is None else self.library.token_to_id(self.mask_token)

    @functools.cached_property
    def unknown(self) -> int | None:
        """The id of the token of unknown text; None where no text becomes one."""
        if self.is_byte_level and set(map_letters_to_bytes()) <= set(self.library.get_vocab()):
            return None
        model = self.contents["model"]
        name = model.get("unk_token")
        return model.get("unk_id") if name is None else self.library.token_to_id(name)

    @functools.cached_property
    def is_byte_level(self) -> bool:
        """Whether tokens are bytes, written as letters."""
        return (self.contents["decoder"] or {}).get("type") == "ByteLevel"

    @functools.cached_property
    def is_concatenation(self) -> bool:
        """Whether the text of tokens is the concatenation of `pieces`."""
        return self.is_byte_level or (self.contents["decoder"] or {}).get("type") == "Fuse"

    @functools.cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token within a text; b"" of a special token."""
        vocabulary, letters = self.library.get_vocab(), map_letters_to_bytes()
        words = sorted(vocabulary, key=vocabulary.__getitem__)

        def find_bytes(i, word):
            if i in self.special_ids:
                return b""
            if self.is_byte_level and all(letter in letters for letter in word):
                return bytes(letters[letter] for letter in word)
            return (word if self.is_concatenation else self.find_text_within(i)).encode()

        return [find_bytes(i, word) for i, word in enumerate(words)]

    def find_text_within(self, i: int) -> str:
        """Return the text of a token after another one."""
        return self.decode([i, i])[len(self.decode([i])) :]

    @functools.cached_property
    def token_sizes(self) -> np.ndarray:  # -> uint8 [size, 2]: characters, bytes
        """The number of characters and of UTF-8 bytes of each token, whose sums are
        those of the text: a character counts for the token in which it begins. An
        unknown token counts as one of each, because its text is not known.
        """
        starts = [sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces]
        out = np.array([starts, [len(piece) for piece in self.pieces]])
        out = out.T.clip(max=255).astype(np.uint8)
        if self.unknown is not None:
            out[self.unknown] = 1
        return out

    @functools.cached_property
    def loses(self) -> str:
        """What encoding and decoding a text loses."""
        model, parts = self.contents["model"], []
        if self.contents["normalizer"]:
            parts.append("what its normalizer changes")
        if self.unknown is not None:
            name = self.library.id_to_token(self.unknown)
            parts.append(f"what its {self.size:,} tokens lack, which becomes {name}")
        elif not self.is_byte_level and not model.get("byte_fallback"):
            fate = "dropped" if model["type"] == "BPE" else "refused"
            parts.append(f"what its {self.size:,} tokens lack, which is {fate}")
        if not self.is_concatenation:
            parts.append("blanks that its decoder places elsewhere")
        elif adds_prefix_space(self.contents["pre_tokenizer"]):
            parts.append("only the space that it prepends to each text")
        return "; ".join(parts) or "nothing"

    def encode(self, text: str) -> np.ndarray:  # int32 [L]
        """Return the ids of a text; raise a UserError where the tokenizer refuses a
        character of it.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:  # int32 [L] of each
        """Return the ids of texts, which the library encodes in parallel. Raise a
        UserError as `encode` does.
        """
        texts = [encode_utf8(text).decode() for text in texts]
        divide = divide_text if has_separable_words(self.contents) else lambda text: [text]
        segments = [(i, part) for i, text in enumerate(texts) for part in divide(text)]
        ids: list[list[np.ndarray]] = [[np.zeros(0, np.int32)] for _ in texts]
        for batch in group_by_length(segments):
            for i, tokens in zip((i for i, _ in batch), self.encode_segments(batch), strict=True):
                ids[i].append(tokens)
        return [np.concatenate(parts) for parts in ids]

    def encode_segments(self, segments: list[tuple[int, str]]) -> list[np.ndarray]:
        """Return the ids of each of these (number, text)."""
        parts = [part for _, part in segments]
        try:
            with convert_library_errors():
                found = self.library.encode_batch_fast(parts, add_special_tokens=False)
        except UserError as e:
            self.refuse_unknown_character(parts)
            raise UserError(f"the tokenizer cannot encode the text: {e}") from None
        return [np.array(encoding.ids, np.int32) for encoding in found]

    def refuse_unknown_character(self, texts: list[str]) -> None:
        """Raise a UserError that names the first character which a tokenizer of
        characters does not have.
        """
        pattern = (self.contents["pre_tokenizer"] or {}).get("pattern", {})
        known = self.library.get_vocab()
        found = next((c for text in texts for c in text if c not in known), None)
        if found is not None and pattern.get("Regex") == CHARACTERS:
            raise UserError(
                f"the character {found!r} (U+{ord(found):04X}) is none of the tokenizer's "
                f"{self.size - len(self.special_ids):,}; use a tokenizer with {UNKNOWN} or with "
                "all bytes"
            )

    def decode(self, ids: Ids) -> str:
        """Return the text of tokens. Invalid UTF-8 is replaced by U+FFFD; numbers below
        0 are skipped.
        """
        with convert_library_errors():
            return self.library.decode([i for i in np.asarray(ids).ravel().tolist() if i >= 0])

    def decode_until_end(self, ids: Ids) -> str:
        """Return the text before the first end token."""
        ids = np.asarray(ids)
        ends = np.flatnonzero(ids == (-1 if self.end is None else self.end))
        return self.decode(ids[: ends[0]] if len(ends) else ids)

    def make_stream_decoder(self) -> Callable[..., str]:  # (ids, final=False) -> new text
        """Return an incremental decoder (ids, final=False) -> the characters that these
        tokens complete.

        An incomplete character is buffered until later tokens complete it, or until
        the last call, with `final`, replaces it by U+FFFD. The concatenated results
        equal `decode` of all tokens.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        tokens: list[int] = []
        length = 0

        def decode_pieces(ids, final=False):
            found = (self.pieces[i] for i in np.asarray(ids).ravel().tolist() if i >= 0)
            return decoder.decode(b"".join(found), final)

        def decode_again(ids, final=False):  # the text of a token depends on other tokens
            nonlocal length
            tokens.extend(np.asarray(ids).ravel().tolist())
            text = self.decode(tokens)
            new = (text if final else text.rstrip("\ufffd"))[length:]
            length += len(new)
            return new

        return decode_pieces if self.is_concatenation else decode_again


def group_by_length(segments: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield consecutive (number, text) in lists of about BATCH characters."""
    batch: list[tuple[int, str]] = []
    total = 0
    for segment in segments:
        batch.append(segment)
        total += len(segment[1])
        if total >= BATCH:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def adds_prefix_space(pre_tokenizer: dict | None) -> bool:
    """Return whether a pre-tokenizer, or a part of one, prepends a blank to a text."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    return any((part or {}).get("add_prefix_space", False) for part in parts)


def from_files(files: dict[str, str]) -> Tokenizer:  # `Tokenizer.files`
    """Return the tokenizer of its files, as the inverse of `Tokenizer.files`.

    Raises:
      UserError: a file is invalid.
    """
    settings = json.loads(files["tokenizer_config.json"])
    return Tokenizer(files["tokenizer.json"], settings.get("eos_token"), settings.get("mask_token"))


# From texts to a tokenizer.


def make_tokenizer(library: Any) -> Tokenizer:
    """Return the tokenizer of a `tokenizers.Tokenizer`, to which SPECIALS are added."""
    library.add_special_tokens(list(SPECIALS))
    return Tokenizer(library.to_str(pretty=True), *SPECIALS)


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

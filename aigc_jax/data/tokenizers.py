"""Tokenizers: text to whole numbers and back, by bytes, characters, words or byte-level BPE.

Each is a plain description, which is what its JSON holds, and the functions that MAKERS gives it. Files are untrusted: they hold
vocabularies, never code. A lone surrogate, which is no text and has no UTF-8, is read as "?" by all of them.
"""

import codecs
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aigc_jax import stored
from aigc_jax.data.splitters import LONGEST, SPLITTERS
from aigc_jax.errors import UserError, choose, first_line, nearest, require
from aigc_jax.input_files import expand_user, find_obstacle, require_regular

SPECIALS = ("<|endoftext|>", "<|mask|>")  # the last two, if not of a file of another library; no text is encoded to them
BYTES = 256
DEFAULT = 10_000  # tokens of words and BPE for config.data.vocabulary = 0
# Runs of letters, digits, other signs or blanks that training BPE cuts after so many characters: its
# time grows with the square of a word's length (encoding does not). Ordinary text has no such words.
LONG_RUNS = "|".join(rf"{kind}{{1024}}" for kind in (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s"))
UNKNOWN = "\ufffd".encode()  # what <unk> shows as


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
        return len(self.pieces)

    def decode(self, ids) -> str:
        """The text of tokens; bytes that are no UTF-8 show as U+FFFD. Numbers below 0 are no tokens."""
        return self.joined(ids).decode("utf-8", "replace")

    def text(self, ids) -> str:
        """The text before the first end."""
        ids = np.asarray(ids)
        ends = np.flatnonzero(ids == (-1 if self.end is None else self.end))
        return self.decode(ids[: ends[0]] if len(ends) else ids)

    def joined(self, ids) -> bytes:
        return b"".join(self.pieces[i] for i in np.asarray(ids).ravel().tolist() if i >= 0)

    def stream(self) -> Callable:
        """(ids, final=False) -> the characters that these tokens complete. A part of one is held back until it is whole; the last
        call says `final`, and what is left of one shows as U+FFFD. All that comes is what `decode` gives at once."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda ids, final=False: decoder.decode(self.joined(ids), final)

    @functools.cached_property
    def sizes(self) -> np.ndarray:  # -> uint8 [size, 2]
        """Characters and UTF-8 bytes of each token, which add up to those of a text: a character counts where it begins. An unknown
        token counts as one of each, for its text is not known."""
        starts = [sum(byte & 0xC0 != 0x80 for byte in piece) for piece in self.pieces]
        out = np.array([starts, [len(piece) for piece in self.pieces]]).T.clip(max=255).astype(np.uint8)
        if self.unknown is not None:
            out[self.unknown] = 1
        return out

    def to_json(self) -> str:
        return json.dumps(self.plain, sort_keys=True)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def from_plain(plain: dict) -> Tokenizer:
    """The tokenizer of a description; whatever else it holds fails in a way of its own."""
    return MAKERS[plain["kind"]](plain)


def from_json(text: str) -> Tokenizer:
    """The inverse of `to_json`. Raises a UserError where the text is no tokenizer."""
    try:
        return _checked(json.loads(text))
    except ValueError as e:
        raise UserError(f"this is no tokenizer.json of ours: {e}") from None


def _checked(plain) -> Tokenizer:
    try:
        return from_plain(plain)
    except Exception as e:
        raise UserError(f"this is no tokenizer.json of ours: {first_line(e, 100)}") from None


def write(path, tokenizer: Tokenizer):
    """A tokenizer's file, which `read` reads."""
    stored.write(Path(path), json.loads(tokenizer.to_json()), "tokenizer.json")


def read(path) -> Tokenizer:
    """The tokenizer in a file."""
    path = Path(path)
    if find_obstacle(path) == "no such file":
        known = [p.name for p in path.parent.glob("*.json")]
        raise UserError(f"{path}: no such file{nearest(path.name, known)}")
    require_regular(path)
    plain = stored.read(path, "tokenizer.json")
    try:
        return _checked(plain)
    except UserError as e:
        raise UserError(f"{path} is damaged: {e}") from None


# From the plain description to the tokenizer.


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def known(plain: dict) -> list[str]:
    """The vocabulary of a description, checked."""
    words = list(plain["known"])
    require(all(isinstance(word, str) and word for word in words), "its vocabulary holds something else than text")
    require(len(set(words)) == len(words), "its vocabulary holds a token twice")
    return words


def with_specials(kind, pieces: list[bytes], encode, plain, *more, count: int = 2) -> Tokenizer:
    """A tokenizer with the first `count` of SPECIALS after its pieces."""
    end, mask = (len(pieces) + i if count > i else None for i in range(2))
    return Tokenizer(kind, pieces + [b""] * count, encode, plain, *more, end=end, mask=mask)


def make_bytes(plain: dict) -> Tokenizer:
    """A token is a byte of UTF-8."""
    encode = lambda text: np.frombuffer(utf8(text), np.uint8).astype(np.int32)
    return with_specials("bytes", [bytes([i]) for i in range(BYTES)], encode, plain)


def make_characters(plain: dict) -> Tokenizer:
    """A token is a code point. One that is not in the vocabulary is <unk>, or a UserError where there is no <unk>."""
    characters = known(plain)
    n, other = len(characters), bool(plain["unknown"])
    table = np.full(0x110000, n if other else -1, np.int32)
    table[[ord(c) for c in characters]] = np.arange(n)

    def encode(text):
        codes = np.frombuffer(utf8(text).decode().encode("utf-32-le"), np.uint32)
        ids = table[codes]
        if not other and ids.min(initial=0) < 0:
            c = chr(codes[np.argmin(ids)])
            raise UserError(f"the character {c!r} (U+{ord(c):04X}) is none of the tokenizer's {n:,}; it needs one with <unk>, or with all bytes")
        return ids

    loses = f"characters other than its {n:,}, " + ("which become <unk>" if other else "which are refused")
    pieces = [c.encode() for c in characters] + [UNKNOWN] * other
    return with_specials("characters", pieces, encode, plain, loses, n if other else None)


def make_words(plain: dict) -> Tokenizer:
    """A token is a piece of text by SPLITTERS; one that is not in the vocabulary is <unk>."""
    words, split = known(plain), SPLITTERS[plain["kind"]]
    n = len(words)
    number = {word: i for i, word in enumerate(words)}
    encode = lambda text: np.array([number.get(piece, n) for piece in split(utf8(text).decode())], np.int32)
    pieces = [word.encode() for word in words] + [UNKNOWN]
    loses = f"words other than its {n:,}, which become <unk>"
    return with_specials(plain["kind"], pieces, encode, plain, loses, n)


@functools.cache
def byte_letters() -> dict[str, int]:
    """The letter that byte-level BPE writes each byte as: itself where it prints, else the next letter from U+0100 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(BYTES) if b not in prints]
    return {chr(b): b for b in prints} | {chr(0x100 + i): b for i, b in enumerate(others)}


def byte_level(library):
    """GPT-2's cut into words, of bytes written as letters; no space is put before the text."""
    from tokenizers import pre_tokenizers

    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return library


def make_bpe(plain: dict) -> Tokenizer:
    """A token is a run of bytes, merged from single ones in the order of `merges` (Sennrich et al. 2016; on bytes: Radford et al. 2019).
    GPT-2's own has one special token, or none, which `specials` says."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    words, letters = known(plain), byte_letters()
    require(set(letters) <= set(words), "its vocabulary lacks a byte")
    pieces = [bytes(letters[letter] for letter in word) for word in words]
    merges = [(left, right) for left, right in plain["merges"]]
    library = byte_level(Library(models.BPE({word: i for i, word in enumerate(words)}, merges)))
    encode = lambda text: np.array(library.encode(utf8(text).decode()).ids, np.int32)
    specials = plain.get("specials", len(SPECIALS))
    require(specials in range(len(SPECIALS) + 1), f"specials = {specials!r} is none of 0, 1, 2")
    return with_specials("bpe", pieces, encode, plain, count=specials)


def make_library(plain: dict) -> Tokenizer:
    """Whatever the library `tokenizers` can read (`data.library`)."""
    from aigc_jax.data import library

    return library.make(plain)


MAKERS = {
    "bytes": make_bytes,
    "characters": make_characters,
    "words": make_words,
    "chinese_words": make_words,
    "bpe": make_bpe,
    "library": make_library,
}

# From texts to a tokenizer.


def limit(config, least: int) -> int:
    """The most tokens that config.data.vocabulary allows."""
    size = config.vocabulary
    require(size == 0 or size >= least,
            f"config.data.vocabulary = {size} must be 0 or at least {least} for config.data.tokenizer = {config.tokenizer!r}")
    return size or DEFAULT


def bytes_(texts, config) -> Tokenizer:
    """The 256 bytes."""
    size = BYTES + len(SPECIALS)
    require(config.vocabulary in (0, size), f"config.data.vocabulary = {config.vocabulary} must be 0 or {size} for config.data.tokenizer = 'bytes'")
    return make_bytes(dict(kind="bytes"))


def most_frequent(counts: Counter, n: int) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]


def characters(texts, config) -> Tokenizer:
    """All characters of the texts, by code point; for a `vocabulary` the most frequent ones and <unk>."""
    counts = Counter()
    for text in texts:
        counts.update(text)
    n = limit(config, 4) - 1 - len(SPECIALS) if config.vocabulary else len(counts)
    return make_characters(dict(kind="characters", known=sorted(most_frequent(counts, n)), unknown=config.vocabulary > 0))


def words(texts, config) -> Tokenizer:
    """The most frequent words of the texts, and <unk>."""
    counts, size = Counter(), limit(config, 4)
    for text in texts:
        counts.update(SPLITTERS[config.tokenizer](text))
    return make_words(dict(kind=config.tokenizer, known=most_frequent(counts, size - 1 - len(SPECIALS))))


def bpe(texts, config) -> Tokenizer:
    """Byte-level BPE, trained on the texts: all bytes, then merges of the most frequent pairs up to `vocabulary`."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Library

    size = limit(config, BYTES + len(SPECIALS)) - len(SPECIALS)
    library = byte_level(Library(models.BPE()))
    cut = pre_tokenizers.Split(Regex(LONG_RUNS), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, library.pre_tokenizer])
    library.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(byte_letters()), max_token_length=LONGEST, show_progress=False))
    model = json.loads(library.to_str())["model"]
    return make_bpe(dict(kind="bpe", known=sorted(model["vocab"], key=model["vocab"].get), merges=model["merges"]))


def file(texts, config) -> Tokenizer:
    """The tokenizer at `tokenizer_path`: a file, a run's directory or one of GPT-2."""
    require(config.tokenizer_path != "",
            "config.data.tokenizer_path = '' must name a tokenizer.json or a run directory for config.data.tokenizer = 'file'")
    path = expand_user(config.tokenizer_path)
    from aigc_jax.data import gpt2

    if gpt2.has_tokenizer(path):
        return gpt2.read_tokenizer(path)
    return read(path / "assets" / "tokenizer.json" if path.is_dir() else path)


# config.data.tokenizer -> (texts, config.data) -> Tokenizer
TOKENIZERS = {"bytes": bytes_, "characters": characters, "words": words, "chinese_words": words, "bpe": bpe, "file": file}


def fitted_part(splits: dict[str, list], config) -> list:
    """What a tokenizer is fit to: the training split; of characters all splits, since a held-out
    character must have a number too."""
    return sum(splits.values(), []) if config.tokenizer == "characters" else splits["train"]


def build(texts: Iterable[str], config) -> Tokenizer:
    """The tokenizer that `config` (a config's `data` section) names, fit to the texts."""
    return choose(TOKENIZERS, config.tokenizer, "config.data.tokenizer")(texts, config)

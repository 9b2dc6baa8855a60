"""Tokenizers of the library `tokenizers`, from its JSON file tokenizer.json."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aigc_jax.data.tokenizers.base import SPECIALS, Ids, Tokenizer, utf8
from aigc_jax.data.tokenizers.bpe import byte_letters
from aigc_jax.utils.errors import require


@dataclass(frozen=True, eq=False)
class Decoded(Tokenizer):
    """A tokenizer whose joined pieces are not the text: what a token shows as depends
    on the others.
    """

    library: Any = None

    def decode(self, ids: Ids) -> str:
        """Return the text of tokens by the library; numbers below 0 are skipped."""
        return self.library.decode([i for i in np.asarray(ids).ravel().tolist() if i >= 0])

    def stream(self) -> Callable:
        """As `Tokenizer.stream`, by decoding all tokens again."""
        tokens, shown = [], 0

        def more(ids, final=False):
            nonlocal shown
            tokens.extend(np.asarray(ids).ravel().tolist())
            text = self.decode(tokens)
            new = (text if final else text.rstrip("\ufffd"))[shown:]
            shown += len(new)
            return new

        return more


def make(plain: dict) -> Tokenizer:
    """The tokenizer of plain["json"]: its first plain["size"] tokens (those after them
    must be special), with plain["end"] as the token that ends a text, or None.

    Its ids are those of the library, but that no text is encoded to a special token.
    What cannot be used raises a UserError: numbers with gaps, tokens that are added
    around each text, merges that are left out at random.
    """
    from tokenizers import Tokenizer as Library

    described, library = json.loads(plain["json"]), Library.from_str(plain["json"])
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    numbers, end = library.get_vocab(), plain["end"]
    check(library, numbers, described["model"])
    special = {x["id"] for x in described["added_tokens"] if x["special"]}
    special |= {numbers[name] for name in SPECIALS if name in numbers}
    require(end is None or end in special, f"its end of text, token {end}, is no special one")
    literal = {x["id"]: x["content"].encode() for x in described["added_tokens"]}
    joins = is_byte_level(described)
    pieces = (byte_pieces if joins else decoded_pieces)(library, numbers)
    pieces = [b"" if i in special else literal.get(i, x) for i, x in enumerate(pieces)]
    require(not any(pieces[plain["size"] :]), "its vocabulary is larger than the model's")
    pieces = pieces[: plain["size"]]
    whole = joins and set(byte_letters()) <= set(numbers)
    unknown = None if whole else numbers.get(described["model"].get("unk_token"))

    def encode(text):
        ids = library.encode(utf8(text).decode(), add_special_tokens=False).ids
        return np.array(ids, np.int32)

    loses = losses(described, unknown)
    found = numbers.get(SPECIALS[1], len(pieces))
    mask = found if found < len(pieces) else None
    more = "library", pieces, encode, plain, loses, unknown, end, mask
    return Tokenizer(*more) if joins else Decoded(*more, library)


def check(library: Any, numbers: dict[str, int], model: dict) -> None:
    """Raise a UserError where tokens do not follow from the text, or have no place."""
    require(numbers != {}, "its vocabulary is empty")
    require(sorted(numbers.values()) == list(range(len(numbers))), "its numbers have gaps")
    require(
        not model.get("dropout"), f"dropout = {model.get('dropout')}: merges left out at random"
    )
    added = library.num_special_tokens_to_add(False)
    require(not added, f"its post_processor adds {added} tokens to each text")


def is_byte_level(described: dict) -> bool:
    """Are its pieces bytes, written as letters, which joined are the text?"""
    decoder, step = described["decoder"], described["pre_tokenizer"] or {}
    if decoder is not None:
        return decoder["type"] == "ByteLevel"
    return any(part["type"] == "ByteLevel" for part in step.get("pretokenizers", [step]) if part)


def byte_pieces(library: Any, numbers: dict[str, int]) -> list[bytes]:
    """Return the bytes of every token of a byte-level vocabulary, by number; a
    UserError where a byte is missing and no unknown token stands for it.
    """
    letters = byte_letters()
    whole = set(letters) <= set(numbers)
    require(whole or library.model.unk_token is not None, "its vocabulary lacks a byte")
    order = sorted(numbers, key=numbers.__getitem__)
    return [bytes(letters.get(letter, 0x3F) for letter in word) for word in order]


def decoded_pieces(library: Any, numbers: dict[str, int]) -> list[bytes]:
    """What each token shows as in the midst of a text."""
    decode: Callable = lambda ids: library.decode(ids, skip_special_tokens=False)
    return [decode([i, i])[len(decode([i])) :].encode() for i in range(len(numbers))]


def losses(described: dict, unknown: int | None) -> str:
    """What a text loses when it is encoded and decoded."""
    parts = []
    if described["normalizer"]:
        parts.append("what its normalizer changes")
    if unknown is not None:
        parts.append(f"what its vocabulary lacks, which becomes {described['model']['unk_token']}")
    if not is_byte_level(described):
        parts.append("blanks that its decoder places elsewhere")
    elif prefixes(described["pre_tokenizer"]):
        parts.append("nothing but a blank that is put before a text")
    return "; ".join(parts) or "nothing"


def prefixes(step: dict | None) -> bool:
    """Does a pre-tokenizer, or a part of one, put a blank before a text?"""
    parts = (step or {}).get("pretokenizers", [step])
    return any((part or {}).get("add_prefix_space", False) for part in parts)

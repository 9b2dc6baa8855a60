"""Tokenizers of the library `tokenizers`, read from its file tokenizer.json."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aigc_jax.data.tokenizers.base import SPECIALS, Ids, Tokenizer, encode_utf8
from aigc_jax.data.tokenizers.bpe import map_letters_to_bytes
from aigc_jax.utils.errors import require


@dataclass(frozen=True, eq=False)
class LibraryTokenizer(Tokenizer):
    """A tokenizer whose concatenated pieces are not the text, because the text of a
    token depends on the other tokens.
    """

    library: Any = None

    def decode(self, ids: Ids) -> str:
        """Decode tokens by the library; numbers below 0 are skipped."""
        return self.library.decode([i for i in np.asarray(ids).ravel().tolist() if i >= 0])

    def make_stream_decoder(self) -> Callable[..., str]:  # (ids, final=False) -> new text
        """Return a decoder as `Tokenizer.make_stream_decoder` does; each call decodes
        all tokens again.
        """
        tokens, length = [], 0

        def more(ids, final=False):
            nonlocal length
            tokens.extend(np.asarray(ids).ravel().tolist())
            text = self.decode(tokens)
            new = (text if final else text.rstrip("\ufffd"))[length:]
            length += len(new)
            return new

        return more


def make_tokenizer(description: dict) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json.

    Its ids are those of the library, except that no text is encoded to a special token.

    Args:
      description: {"json": the contents of tokenizer.json, "size": the number of tokens
        to use, beyond which all tokens must be special, "end": the token that ends a
        text, or None}.

    Raises:
      UserError: ids with gaps, tokens that are added around each text, merges that are
        dropped at random, or other unsupported features.
    """
    from tokenizers import Tokenizer as Library

    contents, library = json.loads(description["json"]), Library.from_str(description["json"])
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    numbers, end = library.get_vocab(), description["end"]
    check_deterministic(library, numbers, contents["model"])
    special = {x["id"] for x in contents["added_tokens"] if x["special"]}
    special |= {numbers[name] for name in SPECIALS if name in numbers}
    require(end is None or end in special, f"its end-of-text token {end} is not a special token")
    literal = {x["id"]: x["content"].encode() for x in contents["added_tokens"]}
    is_bytes = is_byte_level(contents)
    pieces = (list_byte_pieces if is_bytes else list_decoded_pieces)(library, numbers)
    pieces = [b"" if i in special else literal.get(i, x) for i, x in enumerate(pieces)]
    require(not any(pieces[description["size"] :]), "its vocabulary is larger than the model's")
    pieces = pieces[: description["size"]]
    has_all_bytes = is_bytes and set(map_letters_to_bytes()) <= set(numbers)
    unknown = None if has_all_bytes else numbers.get(contents["model"].get("unk_token"))

    def encode(text):
        ids = library.encode(encode_utf8(text).decode(), add_special_tokens=False).ids
        return np.array(ids, np.int32)

    loses = describe_losses(contents, unknown)
    mask_number = numbers.get(SPECIALS[1], len(pieces))
    mask = mask_number if mask_number < len(pieces) else None
    more = "library", pieces, encode, description, loses, unknown, end, mask
    return Tokenizer(*more) if is_bytes else LibraryTokenizer(*more, library)


def check_deterministic(library: Any, token_ids: dict[str, int], model: dict) -> None:
    """Raise a UserError where the text does not determine the tokens, or where their
    ids are not 0 .. n-1.

    Args:
      library: a tokenizer of the library `tokenizers`.
      token_ids: its vocabulary {token: id}.
      model: the entry model of its tokenizer.json.
    """
    require(token_ids != {}, "its vocabulary is empty")
    require(sorted(token_ids.values()) == list(range(len(token_ids))), "its token ids have gaps")
    require(
        not model.get("dropout"), f"dropout = {model.get('dropout')}: it omits merges at random"
    )
    added = library.num_special_tokens_to_add(False)
    require(not added, f"its post_processor adds {added} tokens to each text")


def is_byte_level(tokenizer_json: dict) -> bool:
    """Return whether the pieces are bytes, written as letters, whose concatenation is
    the text.
    """
    decoder, step = tokenizer_json["decoder"], tokenizer_json["pre_tokenizer"] or {}
    if decoder is not None:
        return decoder["type"] == "ByteLevel"
    return any(part["type"] == "ByteLevel" for part in step.get("pretokenizers", [step]) if part)


def list_byte_pieces(library: Any, token_ids: dict[str, int]) -> list[bytes]:  # by id
    """Return the bytes of every token of a byte-level vocabulary, sorted by id. Raise a
    UserError where a byte is missing and the tokenizer has no unknown token for it.

    Args:
      library: a tokenizer of the library `tokenizers`.
      token_ids: its vocabulary {token: id}.
    """
    letters = map_letters_to_bytes()
    has_all_bytes = set(letters) <= set(token_ids)
    require(has_all_bytes or library.model.unk_token is not None, "its vocabulary lacks a byte")
    order = sorted(token_ids, key=token_ids.__getitem__)
    return [bytes(letters.get(letter, 0x3F) for letter in word) for word in order]


def list_decoded_pieces(library: Any, token_ids: dict[str, int]) -> list[bytes]:  # by id
    """Return the text of each token within a text, as UTF-8."""
    decode: Callable = lambda ids: library.decode(ids, skip_special_tokens=False)
    return [decode([i, i])[len(decode([i])) :].encode() for i in range(len(token_ids))]


def describe_losses(tokenizer_json: dict, unknown: int | None) -> str:
    """Return a description of what encoding and decoding a text loses.

    Args:
      tokenizer_json: the contents of a tokenizer.json.
      unknown: the token of unknown pieces, or None.
    """
    parts = []
    if tokenizer_json["normalizer"]:
        parts.append("what its normalizer changes")
    if unknown is not None:
        parts.append(
            f"what its vocabulary lacks, which becomes {tokenizer_json['model']['unk_token']}"
        )
    if not is_byte_level(tokenizer_json):
        parts.append("blanks that its decoder places elsewhere")
    elif adds_prefix_space(tokenizer_json["pre_tokenizer"]):
        parts.append("only the space that it prepends to each text")
    return "; ".join(parts) or "nothing"


def adds_prefix_space(pre_tokenizer: dict | None) -> bool:
    """Return whether a pre-tokenizer, or a part of one, prepends a blank to a text."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    return any((part or {}).get("add_prefix_space", False) for part in parts)

"""Patterns that divide a text into words, and the division of long texts into segments
that are encoded separately.
"""

import re
from collections.abc import Iterator
from typing import Any

LONGEST = 60  # characters of a word and bytes of a BPE token, so that uint8 holds every size

# Regular expressions of the library `tokenizers` (Oniguruma), which match every
# character of a text, and no non-blank together with a blank after it.
CHARACTERS = r"[\s\S]"
WORDS = rf" ?\w{{1,{LONGEST}}}| ?[^\w\s]{{1,{LONGEST}}}|\s"
RUNS = rf"\w{{1,{LONGEST}}}|[\s\S]"
PATTERNS = (CHARACTERS, WORDS, RUNS)

SEGMENT = 2**14  # characters; each needs some hundred bytes while it is encoded
BREAK = re.compile(r"(?<=\S)(?=[ \n])")


def has_separable_words(tokenizer_json: dict) -> bool:
    """Return whether a text may be divided between a non-blank and a following blank or
    line feed without changing its tokens. False where that is not known.

    It is true of this package's pre-tokenizers and of GPT-2's: their regular
    expressions end a word there and do not look behind.

    Args:
      tokenizer_json: the contents of a tokenizer.json.
    """
    if tokenizer_json["normalizer"] or not all(
        t["special"] for t in tokenizer_json["added_tokens"]
    ):
        return False
    step = tokenizer_json["pre_tokenizer"] or {}
    first, *others = step.get("pretokenizers", [step]) or [{}]
    return all(map(is_split, others)) and (
        (is_split(first) and first["pattern"].get("Regex") in PATTERNS)
        or is_separable_byte_level(first, tokenizer_json["model"])
    )


def is_split(step: dict[str, Any]) -> bool:
    """Return whether a pre-tokenizer divides a text and drops none of it."""
    return step.get("type") == "Split" and step["behavior"] == "Isolated"


def is_separable_byte_level(step: dict[str, Any], model: dict[str, Any]) -> bool:
    """Return whether a pre-tokenizer is GPT-2's, or that of a model of single bytes."""
    is_plain = step.get("type") == "ByteLevel" and not step["add_prefix_space"]
    return is_plain and (step["use_regex"] or model.get("merges") == [])


def divide_text(text: str, size: int = SEGMENT) -> Iterator[str]:
    """Yield consecutive parts of a text, divided at the first place after `size`
    characters that is between a non-blank and a blank or line feed.
    """
    start = 0
    while place := BREAK.search(text, start + size):
        yield text[start : place.start()]
        start = place.start()
    yield text[start:]

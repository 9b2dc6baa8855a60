"""Checks of tokenizer.json files, which are untrusted: exceptions of the library become
one-line errors, and tokenizers that are not deterministic, or whose time or memory may
grow faster than the text, are refused.
"""

import base64
import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

from aigc_jax.utils.errors import UserError, first_line, require

MOST_GROWTH = 1000  # characters that normalization or decoding may make of one
MOST_WORD = 1000  # characters of a word of WordPiece, whose time is quadratic in it


@contextlib.contextmanager
def convert_library_errors() -> Iterator[None]:
    """Raise a UserError for any error of the library, also for a failed assertion
    (panic) of its Rust code, which is no Exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(first_line(e, 100)) from None
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        raise UserError(first_line(Exception(e), 100)) from None


def parse_library(text: str) -> Any:  # a `tokenizers.Tokenizer`
    """Return the library's tokenizer of a tokenizer.json, which encodes complete texts
    and no text to a special token.

    Raises:
      UserError: the text is not a tokenizer.json, or its ids have gaps.
    """
    from tokenizers import Tokenizer as Library

    with convert_library_errors():
        contents = json.loads(text)
        require(
            isinstance(contents, dict) and isinstance(contents.get("model"), dict),
            "it has no entry model",
        )
        check_token_ids(contents)
        library = Library.from_str(text)
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    return library


def check_token_ids(contents: dict[str, Any]) -> None:
    """Raise a UserError where ids exceed the number of tokens: the library's time and
    memory grow with the largest id.

    Args:
      contents: of a tokenizer.json, which may be invalid.
    """
    vocabulary, added = contents["model"].get("vocab"), contents.get("added_tokens")
    added = added if isinstance(added, list) else []
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []  # Unigram: a list
    ids += [token.get("id") for token in added if isinstance(token, dict)]
    largest = max((i for i in ids if isinstance(i, int)), default=0)
    most = len(added) + (len(vocabulary) if isinstance(vocabulary, (dict, list)) else 0)
    require(
        largest < max(most, 1), f"its token ids have gaps: {largest:,} is the largest of {most:,}"
    )


def check_tokenizer(library: Any, contents: dict[str, Any]) -> None:
    """Raise a UserError where a tokenizer is not supported: where the text does not
    determine its tokens, their ids are not 0 .. n-1, a byte-level vocabulary lacks
    bytes, or a short text could take very long or become very long.

    Args:
      library: a `tokenizers.Tokenizer`.
      contents: the JSON object of its tokenizer.json, with every part.
    """
    token_ids, model = library.get_vocab(), contents["model"]
    require(token_ids != {}, "its vocabulary is empty")
    require("" not in token_ids, "its vocabulary has an empty token")
    require(sorted(token_ids.values()) == list(range(len(token_ids))), "its token ids have gaps")
    require(
        not model.get("dropout"), f"dropout = {model.get('dropout')}: it omits merges at random"
    )
    added = library.num_special_tokens_to_add(False)
    require(not added, f"its post_processor adds {added} tokens to each text")
    longest = model.get("max_input_chars_per_word", 0)
    require(
        longest <= MOST_WORD,
        f"max_input_chars_per_word = {longest:,} must be at most {MOST_WORD:,}",
    )
    for part in ("normalizer", "decoder"):
        growth = max_growth(contents[part])
        require(
            growth <= MOST_GROWTH,
            f"its {part} may replace a character by {growth:,}, more than {MOST_GROWTH:,}",
        )


def max_growth(step: dict[str, Any] | None) -> int:
    """Return how many characters a normalizer or decoder may make of one, without those
    of Unicode's normal forms.
    """
    step = step or {}
    parts = step.get("normalizers", step.get("decoders", []))
    texts = [step.get("content", ""), step.get("prepend", "")]
    if step.get("precompiled_charsmap"):
        # length of an index, the index, and the replacements, each of which ends in 0
        data = base64.b64decode(step["precompiled_charsmap"])
        texts += data[4 + int.from_bytes(data[:4], "little") :].split(b"\0")
    own = max(1, *(1 + len(text) for text in texts if text)) if any(texts) else 1
    return own * math.prod(map(max_growth, parts))

"""Tokenizers of bytes: single ones, and runs of bytes by byte-level BPE."""

from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.base import (
    BYTES,
    SPECIALS,
    Tokenizer,
    encode_utf8,
    make_tokenizer,
    map_letters_to_bytes,
    max_vocabulary_size,
)
from aigc_jax.data.tokenizers.segments import LONGEST, divide_text
from aigc_jax.utils.errors import require

# Training divides runs of letters, digits, other signs or blanks after 1024 characters,
# because its time grows with the square of a word's length (unlike that of encoding).
# Ordinary text has no such words.
LONG_RUNS = "|".join(rf"{kind}{{1024}}" for kind in (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s"))


def make_byte_level(model: Any, divides_words: bool) -> Any:
    """Return a `tokenizers.Tokenizer` that writes bytes as letters, as GPT-2 does; no
    space is prepended.

    Args:
      model: of the letters.
      divides_words: whether the text is divided into words by GPT-2's pattern.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, pre_tokenizers

    library = Library(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=divides_words
    )
    library.decoder = decoders.ByteLevel()
    return library


def fit_bytes(_texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return the tokenizer of the 256 bytes: byte-level BPE without merges, where the
    id of a byte is its value. The texts are unused.
    """
    from tokenizers import models

    size = BYTES + len(SPECIALS)
    require(
        config.vocabulary in (0, size),
        f"config.data.vocabulary = {config.vocabulary} must be 0 or {size} for "
        "config.data.tokenizer = 'bytes'",
    )
    model = models.BPE(map_letters_to_bytes(), [])
    return make_tokenizer(make_byte_level(model, divides_words=False))


def fit_bpe(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Train byte-level BPE on the texts: all bytes, then merges of the most frequent
    pairs, up to config.vocabulary tokens (Sennrich et al. 2016; on bytes: Radford et
    al. 2019).
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers

    size = max_vocabulary_size(config, BYTES + len(SPECIALS)) - len(SPECIALS)
    library = make_byte_level(models.BPE(), divides_words=True)
    words = library.pre_tokenizer
    cut = pre_tokenizers.Split(Regex(LONG_RUNS), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, words])
    segments = (part for text in texts for part in divide_text(encode_utf8(text).decode()))
    library.train_from_iterator(
        segments,
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=sorted(map_letters_to_bytes()),
            max_token_length=LONGEST,
            show_progress=False,
        ),
    )
    library.pre_tokenizer = words
    return make_tokenizer(library)

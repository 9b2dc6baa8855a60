"""Tokenizers of characters and of words: models of the type WordLevel."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from aigc_jax.data.tokenizers.base import (
    SPECIALS,
    UNKNOWN,
    Tokenizer,
    encode_utf8,
    make_tokenizer,
    max_vocabulary_size,
)
from aigc_jax.data.tokenizers.segments import CHARACTERS, WORDS, divide_text


def make_word_level(words: list[str], pattern: str, has_unknown: bool) -> Any:
    """Return a `tokenizers.Tokenizer` whose tokens are the matches of a pattern.

    Args:
      words: the vocabulary, in the order of ids.
      pattern: a regular expression that matches every character.
      has_unknown: whether other matches are <unk>, the last token, instead of errors.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    vocabulary = {word: i for i, word in enumerate([*words, UNKNOWN] if has_unknown else words)}
    library = Library(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    library.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    library.decoder = decoders.Fuse()
    return library


def fit_characters(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return a tokenizer of all code points of the texts, in their order, which refuses
    others; with config.vocabulary, of the most frequent code points and <unk>.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(encode_utf8(text).decode())
    n = max_vocabulary_size(config, 4) - 1 - len(SPECIALS) if config.vocabulary else len(counts)
    characters = sorted(most_frequent(counts, n))
    return make_tokenizer(make_word_level(characters, CHARACTERS, config.vocabulary > 0))


def fit_words(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return a tokenizer of the most frequent words of the texts, and <unk>.

    A word is a run of letters, marks, digits and underscores, or of other signs, with
    the blank before it; every other blank or line break is a word of its own. Runs end
    after 60 characters.
    """
    from tokenizers import trainers

    n = max_vocabulary_size(config, 4) - 1 - len(SPECIALS)
    library = make_word_level([], WORDS, has_unknown=True)
    segments = (part for text in texts for part in divide_text(encode_utf8(text).decode()))
    library.train_from_iterator(
        segments, trainers.WordLevelTrainer(vocab_size=n, show_progress=False, special_tokens=[])
    )
    token_ids = library.get_vocab()
    return make_tokenizer(
        make_word_level(sorted(token_ids, key=token_ids.__getitem__), WORDS, has_unknown=True)
    )


def most_frequent(counts: Counter, n: int) -> list[str]:
    """Return the n most frequent words, equally frequent ones in alphabetical order."""
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]

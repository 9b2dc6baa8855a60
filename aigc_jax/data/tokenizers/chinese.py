"""Tokenizers of Chinese words: longest match over a vocabulary that jieba makes.

jieba is needed to fit a tokenizer, and not to use it: the words of a text are those of
its vocabulary, of which the longest is chosen from left to right (WordPiece).
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
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
from aigc_jax.data.tokenizers.segments import LONGEST, RUNS
from aigc_jax.data.tokenizers.words import most_frequent
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import UserError


@functools.cache
def import_jieba_cut() -> Callable[[str], Iterator[str]]:  # text -> words
    """Return jieba's function text -> words, with its dictionary in the user's cache;
    raise a UserError where the package jieba is not installed.
    """
    try:
        import jieba
    except ImportError:
        raise UserError(
            "config.data.tokenizer = 'chinese_words' needs the package jieba: pip install jieba"
        ) from None
    jieba.setLogLevel("WARNING")
    segmenter = jieba.Tokenizer()
    segmenter.tmp_dir = str(
        cache_dir("jieba")
    )  # jieba's default is a file in a world-writable directory
    Path(segmenter.tmp_dir).mkdir(parents=True, exist_ok=True)
    return segmenter.cut


def make_longest_match(words: list[str]) -> Any:
    """Return a `tokenizers.Tokenizer` of the longest matching words.

    A run of letters and digits, of at most 60, is divided into words; all other
    characters are tokens of their own, and so are those that no word has: <unk>.

    Args:
      words: the vocabulary, in the order of ids, all single characters included; <unk>
        follows.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    vocabulary = {word: i for i, word in enumerate([*words, UNKNOWN])}
    library = Library(
        models.WordPiece(
            vocabulary,
            unk_token=UNKNOWN,
            max_input_chars_per_word=LONGEST,
            continuing_subword_prefix="",
        )
    )
    # WordPiece makes one <unk> of a run that has an unknown character anywhere.
    known = "".join(rf"\x{{{ord(word):X}}}" for word in sorted(words) if len(word) == 1)
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (RUNS, f"[^{known}]")]
    library.pre_tokenizer = pre_tokenizers.Sequence(steps)
    library.decoder = decoders.Fuse()
    return library


def fit_chinese_words(texts: Iterable[str], config: ConfigDict) -> Tokenizer:
    """Return a tokenizer of the characters of the texts, most frequent first, and, in
    the rest of the vocabulary, of the most frequent longer words that jieba finds.
    """
    n = max_vocabulary_size(config, 4) - 1 - len(SPECIALS)
    cut = import_jieba_cut()
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in map(encode_utf8, texts):
        characters.update(text.decode())
        words.update(word for word in cut(text.decode()) if 1 < len(word) <= LONGEST)
    known = most_frequent(characters, n)
    split = make_longest_match(known).pre_tokenizer
    # Signs within a word would divide it before the words are matched.
    longer = (word for word in most_frequent(words, len(words)) if is_run(word, split))
    return make_tokenizer(make_longest_match([*known, *itertools.islice(longer, n - len(known))]))


def is_run(word: str, pre_tokenizer: Any) -> bool:
    """Return whether a pre-tokenizer of the library leaves a word undivided."""
    return len(pre_tokenizer.pre_tokenize_str(word)) == 1


def compare_with_jieba(tokenizer: Tokenizer, texts: Iterable[str]) -> str:
    """Describe how many of jieba's words, and of its boundaries between words, in the
    texts the tokenizer has, and how many of the tokenizer's words jieba.
    """
    cut = import_jieba_cut()
    shared, ours, theirs = (Counter[str]() for _ in range(3))
    for text in texts:
        text = encode_utf8(text).decode()
        found = {tuple(span) for span in tokenizer.library.encode(text).offsets}
        ends, expected = 0, set()
        for word in cut(text):
            expected.add((ends, ends + len(word)))
            ends += len(word)
        for counts, spans in ((ours, found), (theirs, expected)):
            counts.update(words=len(spans), boundaries=len(spans) - 1)
        inner = {end for _, end in found} & {end for _, end in expected} - {ends}
        shared.update(words=len(found & expected), boundaries=len(inner))
    share = lambda name, total: f"{shared[name] / max(total[name], 1):.1%}"
    return (
        f"of jieba's {theirs['words']:,} words in the held-out text, longest match finds "
        f"{share('words', theirs)}, and {share('boundaries', theirs)} of the boundaries between "
        f"them; of its own {ours['words']:,} words, {share('words', ours)} are jieba's"
    )

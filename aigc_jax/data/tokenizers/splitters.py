"""Functions that split a text into words, whose concatenation is the text."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import UserError

LONGEST = 60  # characters of a word and bytes of a BPE token, so that `sizes` holds every size

WORDS = re.compile(rf" ?\w{{1,{LONGEST}}}| ?[^\w\s]{{1,{LONGEST}}}|\s")


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


def split_chinese_words(text: str) -> Iterator[str]:
    """Yield the words of a Chinese text, in parts of at most LONGEST characters."""
    for word in import_jieba_cut()(text):
        yield from (word[i : i + LONGEST] for i in range(0, len(word), LONGEST))


SPLITTERS: dict[str, Callable[[str], Iterable[str]]] = {
    "words": WORDS.findall,
    "chinese_words": split_chinese_words,
}

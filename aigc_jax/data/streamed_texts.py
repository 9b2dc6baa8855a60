"""Texts that are read and tokenized one by one, so that their number is limited only by
the disk.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.arrays import ConcatenatedArray
from aigc_jax.data.cleaning import describe_cleaning, make_cleaner
from aigc_jax.data.dataset import Dataset, require_end_token
from aigc_jax.data.rows import Rows
from aigc_jax.data.windows import (
    MANY,
    SPLITS,
    make_window_dataset,
    tokenize_splits_cached,
    wrap_tokens,
)
from aigc_jax.utils.errors import choose
from aigc_jax.utils.terminal import iterate_with_progress


class SelectedTexts:
    """The texts of one split, read and cleaned anew whenever they are iterated.

    Args:
      texts: of a source; empty and missing ones (None) are dropped.
      clean: text -> text.
      deciles: the values of `hash_decile` of the split's texts.
    """

    def __init__(
        self,
        texts: Rows,
        clean: Callable[[str], str],
        deciles: Collection[int] = range(10),
    ) -> None:
        self.texts, self.clean, self.deciles = texts, clean, deciles

    def __iter__(self) -> Iterator[str]:
        texts = iterate_with_progress("reading", self.texts, len(self.texts), "texts")
        for cleaned in (self.clean(text) for text in texts if text):
            is_selected = len(self.deciles) == 10 or files.hash_decile(cleaned) in self.deciles
            if cleaned and is_selected:
                yield cleaned


def choose_tenths(config: ConfigDict, sources: Collection[str]) -> Sequence[str]:
    """Return the split of each tenth of the hash values of the texts of train: by
    config.split where it is the only source; train, and valid if the sources lack it,
    otherwise.
    """
    tenths = choose(SPLITS, config.split, "config.data.split")
    if len(sources) == 1:
        return tenths
    return ("train",) * 10 if "valid" in sources else SPLITS["90/10"]


def make_streamed_window_dataset(
    config: ConfigDict,
    sources: Mapping[str, Rows],
    fingerprint: str,
    about: dict,
) -> Dataset:  # as `make_window_dataset`
    """Return the data set of all windows of texts that are never in memory together:
    they are read one by one and tokenized into a memory-mapped file of the cache.

    An end token follows each text. A single source is divided by the hash of the texts;
    without a validation split, a tenth of train replaces it.

    Args:
      config: the `data` section of a config.
      sources: {"train": texts, "valid": ..., "test": ...}.
      fingerprint: a hash that identifies the texts before cleaning.
      about: `Dataset.about`, to which statistics of the text are added.
    """
    if len(sources) == 1 and len(sources["train"]) < MANY:
        return make_window_dataset(config, [text or "" for text in sources["train"]], about)
    clean, tenths = make_cleaner(config, config.script), choose_tenths(config, sources)
    parts = {
        name: SelectedTexts(sources["train"], clean, [i for i in range(10) if tenths[i] == name])
        for name in dict.fromkeys(tenths)
    } | {name: SelectedTexts(sources[name], clean) for name in sources if name != "train"}
    parts = {name: parts[name] for name in ("train", "valid", "test") if name in parts}
    identity = [fingerprint, tenths, describe_cleaning(config)]
    tokenized = tokenize_splits_cached(config, parts, identity, True)
    tokens = ConcatenatedArray([tokenized.tokens], tokenized.identity)
    start = require_end_token(tokenized.tokenizer)
    return wrap_tokens(config, tokenized, tokens, start, about)

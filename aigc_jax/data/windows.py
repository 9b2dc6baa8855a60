"""Token windows of a fixed length."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import array_cache, files, tokenizers
from aigc_jax.data.cleaning import make_cleaner
from aigc_jax.data.dataset import Dataset, Spec, make_text_spec, require_end_token
from aigc_jax.data.tokenizers.base import Tokenizer, from_files, group_by_length
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_warning

LAYOUT = 4  # increase when the same texts yield other tokens: invalidates older caches


# From texts to windows.


def make_window_dataset(
    config: ConfigDict, texts: list[str], about: dict, script_override: str | None = None
) -> Dataset:  # rows of length + 1 tokens
    """Return the data set of all windows of config.length + 1 tokens: the inputs, and
    the targets shifted by one token.

    An end token follows each of several texts, also each part of a text that the
    boundary of a split divides. A single text has no end token.

    Args:
      config: the `data` section of a config.
      texts: the documents, before cleaning; empty ones are dropped.
      about: `Dataset.about`, to which statistics of the text are added.
      script_override: replaces config.script.
    """
    clean, tenths = (
        make_cleaner(config, config.script if script_override is None else script_override),
        choose(SPLITS, config.split, "config.data.split"),
    )
    texts = [cleaned for cleaned in map(clean, texts) if cleaned]
    parts = (split_by_content_hash if len(texts) >= MANY else split_by_position)(texts, tenths)
    hashes = {
        name: [hashlib.sha256(part.encode()).hexdigest() for part in texts]
        for name, texts in parts.items()
    }
    several = len(texts) > 1
    tokenized = tokenize_splits_cached(config, parts, hashes, several)
    start = find_start_token(tokenized.tokenizer, parts["train"], several)
    # A text that the boundary of a split divides is one document.
    tokenized = tokenized._replace(documents=len(texts))
    return wrap_tokens(config, tokenized, tokenized.tokens, start, about)


def wrap_tokens(
    config: ConfigDict, tokenized: "TokenizedSplits", tokens: Any, start: int, about: dict
) -> Dataset:
    """Return the data set of windows of tokens.

    Args:
      config: the `data` section of a config.
      tokenized: the tokenized splits.
      tokens: the tokens [n], as an array or an object that reads them.
      start: the token that precedes a generated text.
      about: `Dataset.about`, to which statistics of the text are added.
    """
    tokenizer, total = tokenized.tokenizer, sum(tokenized.counts.values())
    text = dict(
        documents=tokenized.documents,
        characters=tokenized.characters,
        tokens=total,
        characters_per_token=tokenized.characters / total,
        tokenizer=config.tokenizer,
        loses=tokenizer.loses,
        **(dict(difference=tokenized.difference) if tokenized.difference else {}),
    )
    bounds = make_window_bounds(tokenized.counts, config.length)
    spec = make_text_spec(tokenizer, (config.length,), bounds["train"][1], start)
    take, vary = make_window_readers(config.length)
    arrays = dict(tokens=tokens, sizes=tokenizer.token_sizes)
    return Dataset(arrays, bounds, take, spec, about | dict(text=text), vary, tokenizer)


def make_window_readers(length: int) -> tuple[Callable, Callable]:  # `Dataset.take`, `vary`
    """Return `Dataset.take` and `Dataset.vary` of windows of `length` tokens. `vary`
    shifts all windows of an epoch by its random word modulo `length`.
    """

    # [B] -> {"tokens": [B, T + 1], "characters": [B, T], "bytes": [B, T]}; the last two
    # are sizes of tokens[:, 1:].
    def at(arrays, first):
        tokens = arrays["tokens"][first[:, None] + np.arange(length + 1, dtype=np.int32)].astype(
            np.int32
        )
        sizes = arrays["sizes"][tokens[:, 1:]].astype(np.float32)
        return dict(tokens=tokens, characters=sizes[..., 0], bytes=sizes[..., 1])

    take = lambda arrays, rows: at(arrays, rows * length)
    vary = lambda arrays, rows, words: at(arrays, rows * length + (words % length).astype(np.int32))
    return take, vary


def find_start_token(tokenizer: Tokenizer, train_texts: list[str], has_end_tokens: bool) -> int:
    """Return the token that precedes a generated text: the end token that separates
    several texts; for a single text the last token of its line break, or its first
    token if it has no line break.

    Args:
      tokenizer: of the texts.
      train_texts: the training texts.
      has_end_tokens: whether end tokens separate the texts.
    """
    if has_end_tokens:
        return require_end_token(tokenizer)
    line_break = next((mark for mark in ("\r\n", "\n") if mark in train_texts[0]), None)
    return int(
        tokenizer.encode(line_break)[-1] if line_break else tokenizer.encode(train_texts[0])[0]
    )


def make_window_bounds(
    num_tokens: dict[str, int], length: int
) -> dict[str, tuple[int, int]]:  # -> {split: (first window, number of windows)}
    """Return {split: (first window, number of windows)} of splits with these numbers
    of tokens.

    Each split begins at a multiple of `length`. A training window shifted by up to
    length - 1 tokens remains within its split. Raise a UserError where a split is
    shorter than a window.

    Args:
      num_tokens: {split: number of tokens}, in the order of the array.
      length: tokens of a window.
    """
    bounds, first = {}, 0
    for name, count in num_tokens.items():
        spare = length if name == "train" else 1
        require(
            count >= length + spare,
            f"config.data.length = {length} is too long: the {name} split has {count:,} "
            f"tokens and a window needs {length + spare:,}",
        )
        bounds[name] = (first, (count - spare) // length)
        first += -(-count // length)
    return bounds | dict(test=bounds.get("test", bounds["valid"]))


def make_placeholder_dataset(vocabulary_size: int, length: int, num_windows: int) -> Dataset:
    """Return a data set of text, all tokens 0. A program compiled for it serves any
    text, because it depends on shapes alone.

    Args:
      vocabulary_size: number of tokens.
      length: tokens of a window.
      num_windows: number of training windows.
    """
    bounds = make_window_bounds(dict(train=(num_windows + 1) * length, valid=10 * length), length)
    take, vary = make_window_readers(length)
    tokens = np.zeros(
        (num_windows + 12) * length, np.uint16 if vocabulary_size <= 2**16 else np.int32
    )
    spec = Spec(
        "text", (length,), bounds["train"][1], vocabulary=vocabulary_size, mask=vocabulary_size - 1
    )
    return Dataset(
        dict(tokens=tokens, sizes=np.ones((vocabulary_size, 2), np.uint8)),
        bounds,
        take,
        spec,
        {},
        vary,
    )


class TokenizedSplits(NamedTuple):
    """The tokens of all splits, each padded to a multiple of config.length."""

    tokenizer: Tokenizer
    tokens: np.ndarray  # [n], memory-mapped unless the cache cannot be written
    counts: dict[str, int]  # {split: number of tokens without padding}
    documents: int  # number of texts
    characters: int
    difference: str  # `tokenizers.compare` on the valid split
    identity: str  # a hash of the texts and of the settings of tokenization


def tokenize_splits_cached(
    config: ConfigDict,
    texts_of_split: Mapping[str, Iterable[str]],
    identity: Any,
    add_end_tokens: bool,
) -> TokenizedSplits:
    """Tokenize all splits, or read them from the cache.

    The tokenizer is read from its file, or fit to `tokenizers.select_examples_to_fit`.
    Texts are tokenized about a million characters at a time, and never in memory
    together.

    Args:
      config: the `data` section of a config.
      texts_of_split: {split: texts}, cleaned, which are iterated repeatedly.
      identity: an object that JSON can represent and that identifies the texts.
      add_end_tokens: whether an end token follows each text.
    """
    require(config.length > 0, f"config.data.length = {config.length} tokens must be at least 1")
    file_tokenizer = tokenizers.build((), config) if config.tokenizer == "file" else None
    cached = token_cache_path(config, identity, add_end_tokens, file_tokenizer)
    try:
        tokens, cached_fields = array_cache.load(cached)
        tokenizer = from_files(cached_fields["tokenizer"])
        return make_tokenized_splits(tokenizer, tokens, cached, cached_fields)
    except OSError:  # not cached yet
        pass
    except Exception:  # a damaged file raises exceptions of many types
        print_warning(f"{cached} is damaged: tokenizing again")
    tokenizer = file_tokenizer or tokenizers.build(
        tokenizers.select_examples_to_fit(texts_of_split, config), config
    )
    end = require_end_token(tokenizer) if add_end_tokens else None
    difference = tokenizers.compare(tokenizer, texts_of_split["valid"], config)
    fields: dict[str, Any] = dict(tokenizer=tokenizer.files, difference=difference)
    pieces = lambda: encode_splits(tokenizer, texts_of_split, config.length, end, fields)
    kind = np.uint16 if tokenizer.size <= 2**16 else np.int32
    write = lambda f: array_cache.write_npy(f, (ids.astype(kind) for ids in pieces()), kind)
    if array_cache.try_write(cached, write, fields, "tokens"):
        tokens = array_cache.load(cached)[0]
    else:
        tokens = np.concatenate(list(pieces())).astype(kind)
    return make_tokenized_splits(tokenizer, tokens, cached, fields)


def make_tokenized_splits(
    tokenizer: Tokenizer, tokens: np.ndarray, cached: Path, fields: dict[str, Any]
) -> TokenizedSplits:
    """Return the tokenized splits of a cache's array and description.

    Args:
      tokenizer: of the texts.
      tokens: [n].
      cached: the path of the description.
      fields: its contents.
    """
    names = ("counts", "documents", "characters", "difference")
    return TokenizedSplits(
        tokenizer, np.asarray(tokens), **{k: fields[k] for k in names}, identity=cached.stem
    )


def encode_splits(
    tokenizer: Tokenizer,
    texts_of_split: Mapping[str, Iterable[str]],
    length: int,
    end_token: int | None,
    totals: dict[str, Any],
) -> Iterator[np.ndarray]:  # tokens [n] of each text, and of padding
    """Yield the tokens of all texts, and after each split the padding up to a multiple
    of `length`.

    Args:
      tokenizer: of the texts.
      texts_of_split: {split: texts}.
      length: tokens of a window.
      end_token: follows each text; None: none.
      totals: at the end, the entries counts, documents and characters are set.

    Raises:
      UserError: a split is shorter than a window.
    """
    counts, documents, characters = dict.fromkeys(texts_of_split, 0), 0, 0
    filler = tokenizer.size - 1 if tokenizer.end is None else tokenizer.end  # never read
    for name, texts in texts_of_split.items():
        for batch in group_by_length(enumerate(texts)):
            documents += len(batch)
            characters += sum(len(text) for _, text in batch)
            for ids in tokenizer.encode_batch([text for _, text in batch]):
                ids = ids if end_token is None else np.append(ids, end_token)
                counts[name] += len(ids)
                yield ids
        yield np.full(-counts[name] % length, filler)
    make_window_bounds(counts, length)  # raises where a split is too short
    totals |= dict(counts=counts, documents=documents, characters=characters)


def token_cache_path(
    config: ConfigDict, identity: Any, add_end_tokens: bool, file_tokenizer: Tokenizer | None
) -> Path:
    """Return the path of the cached tokens, named by a hash of the texts and of the
    settings of tokenization.

    Args:
      config: the `data` section of a config.
      identity: an object that JSON can represent and that identifies the texts.
      add_end_tokens: whether end tokens separate the texts.
      file_tokenizer: the tokenizer, where it is read from a file.
    """
    settings = [
        LAYOUT,
        config.tokenizer,
        file_tokenizer and file_tokenizer.sha256,
        config.vocabulary,
        config.length,
        add_end_tokens,
        identity,
    ]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return cache_dir("texts") / f"{digest}.json"


MANY = 100  # from this number of documents on, splits consist of complete documents

# config.data.split -> the split of each tenth of the texts. Without a test split, the
# valid split is used for both.
SPLITS = {
    "80/10/10": ("train",) * 8 + ("valid", "test"),
    "90/10": ("train",) * 9 + ("valid",),
    "80/20": ("train",) * 8 + ("valid",) * 2,
}


def split_by_content_hash(texts: list[str], split_of_tenth: Sequence[str]) -> dict[str, list[str]]:
    """Assign each text to a split by the hash of its contents, so that duplicates are
    in the same split.

    Args:
      texts: the documents.
      split_of_tenth: the split of each tenth of the hash values, a value of SPLITS.
    """
    which = [split_of_tenth[files.hash_decile(text)] for text in texts]
    return {
        name: [text for text, its in zip(texts, which, strict=True) if its == name]
        for name in dict.fromkeys(split_of_tenth)
    }


def split_by_position(texts: list[str], split_of_tenth: Sequence[str]) -> dict[str, list[str]]:
    """Divide the concatenated characters into consecutive tenths. A text that contains
    the boundary of a split is divided into two.

    Args:
      texts: the documents.
      split_of_tenth: the split of each tenth of the characters, a value of SPLITS.
    """
    starts = np.cumsum([0, *map(len, texts)]).tolist()
    border = lambda tenth: starts[-1] * tenth // 10
    parts = {}
    for name in dict.fromkeys(split_of_tenth):
        low, high = (
            border(split_of_tenth.index(name)),
            border(split_of_tenth.index(name) + split_of_tenth.count(name)),
        )
        cut = [
            text[max(low - start, 0) : max(high - start, 0)]
            for text, start in zip(texts, starts, strict=False)
        ]
        parts[name] = [part for part in cut if part]
    return parts

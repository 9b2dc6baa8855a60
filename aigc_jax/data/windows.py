"""A text's tokens as windows of one length."""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files, tokenizers
from aigc_jax.data.cleaning import cleaner
from aigc_jax.data.dataset import Dataset, Spec, end_of, text_spec
from aigc_jax.data.tokenizers.base import Tokenizer
from aigc_jax.utils.disk import cache_dir
from aigc_jax.utils.errors import choose, require
from aigc_jax.utils.terminal import print_warning

LAYOUT = 2  # raise it when the same texts give other tokens: caches of another number are not read


# From texts to windows.


def windows_of(
    config: ConfigDict, texts: list[str], about: dict, script: str | None = None
) -> Dataset:
    """The data set of all windows of config.length tokens, and the one that follows
    each of them.

    Where there are several texts, each is followed by the tokenizer's `end`, and so is
    each part of one that a split's border cuts.
    """
    clean, tenths = (
        cleaner(config, config.script if script is None else script),
        choose(SPLITS, config.split, "config.data.split"),
    )
    require(config.length > 0, f"config.data.length = {config.length} tokens must be at least 1")
    texts = [cleaned for cleaned in map(clean, texts) if cleaned]
    parts = (by_content if len(texts) >= MANY else by_position)(texts, tenths)
    tokenizer, tokens, counts = tokenized(config, parts, len(texts) > 1)
    bounds = layout(counts, config.length)
    letters, total = sum(map(len, texts)), sum(counts.values())
    about = about | dict(
        text=dict(
            documents=len(texts),
            characters=letters,
            tokens=total,
            characters_per_token=letters / total,
            tokenizer=tokenizer.kind,
            loses=tokenizer.loses,
        )
    )
    start = beginning(tokenizer, parts["train"], len(texts) > 1)
    spec = text_spec(tokenizer, (config.length,), bounds["train"][1], start)
    take, vary = takers(config.length)
    return Dataset(
        dict(tokens=tokens, sizes=tokenizer.sizes), bounds, take, spec, about, vary, tokenizer
    )


def takers(length: int) -> tuple[Callable, Callable]:
    """`take` and `vary` of windows of `length` tokens: where they stand, and all moved
    on by as much as an epoch's word says.
    """

    # [B] -> {"tokens": [B, T + 1], "characters": [B, T], "bytes": [B, T]}, of which the
    # last two are of tokens[:, 1:].
    def at(arrays, first):
        tokens = arrays["tokens"][first[:, None] + np.arange(length + 1, dtype=np.int32)].astype(
            np.int32
        )
        sizes = arrays["sizes"][tokens[:, 1:]].astype(np.float32)
        return dict(tokens=tokens, characters=sizes[..., 0], bytes=sizes[..., 1])

    take = lambda arrays, rows: at(arrays, rows * length)
    vary = lambda arrays, rows, words: at(arrays, rows * length + (words % length).astype(np.int32))
    return take, vary


def beginning(tokenizer: Tokenizer, train: list[str], several: bool) -> int:
    """The token after which a text begins: the one between texts; of a single text the
    last of its line break, or its first.
    """
    if several:
        return end_of(tokenizer)
    line_break = next((mark for mark in ("\r\n", "\n") if mark in train[0]), None)
    return int(tokenizer.encode(line_break)[-1] if line_break else tokenizer.encode(train[0])[0])


def layout(counts: dict[str, int], length: int) -> dict[str, tuple[int, int]]:
    """{split: (first window, windows)} of splits with so many tokens, each from a
    multiple of `length` on. A training window can move on by length - 1 tokens and
    still lie in its split.
    """
    bounds, first = {}, 0
    for name, count in counts.items():
        spare = length if name == "train" else 1
        require(
            count >= length + spare,
            f"config.data.length = {length} is too long: the {name} split has {count:,} "
            f"tokens and a window needs {length + spare:,}",
        )
        bounds[name] = (first, (count - spare) // length)
        first += -(-count // length)
    return bounds | dict(test=bounds.get("test", bounds["valid"]))


def blank(vocabulary: int, length: int, windows: int) -> Dataset:
    """A text of nothing but token 0, with as many training windows: what a program is
    compiled for does not hang on what a text says.
    """
    bounds = layout(dict(train=(windows + 1) * length, valid=10 * length), length)
    take, vary = takers(length)
    tokens = np.zeros((windows + 12) * length, np.uint16 if vocabulary <= 2**16 else np.int32)
    spec = Spec("text", (length,), bounds["train"][1], vocabulary=vocabulary, mask=vocabulary - 1)
    return Dataset(
        dict(tokens=tokens, sizes=np.ones((vocabulary, 2), np.uint8)), bounds, take, spec, {}, vary
    )


def tokenized(
    config: ConfigDict, parts: dict[str, list[str]], several: bool
) -> tuple[Tokenizer, np.ndarray, dict[str, int]]:
    """All splits as one cached array; `tokenizers.fitted_part` fits the tokenizer."""
    hashes = {
        name: [hashlib.sha256(part.encode()).hexdigest() for part in texts]
        for name, texts in parts.items()
    }
    given = tokenizers.build((), config) if config.tokenizer == "file" else None
    settings = [
        LAYOUT,
        config.tokenizer,
        given and given.sha256,
        config.vocabulary,
        config.length,
        several,
        hashes,
    ]
    cached = (
        cache_dir("texts") / f"{hashlib.sha256(json.dumps(settings).encode()).hexdigest()}.json"
    )
    try:
        tokens, described = files.kept_array(cached)
        return tokenizers.from_json(described["tokenizer"]), np.asarray(tokens), described["counts"]
    except OSError:  # not there
        pass
    except Exception:  # a damaged file is damaged in many ways
        print_warning(f"{cached} is damaged: tokenizing again")
    tokenizer = given or tokenizers.build(tokenizers.fitted_part(parts, config), config)
    end = np.array([end_of(tokenizer)] * several, np.int32)
    join = lambda texts: np.concatenate(
        [np.zeros(0, np.int32), *(ids for part in texts for ids in (tokenizer.encode(part), end))]
    )
    ids = {name: join(texts) for name, texts in parts.items()}
    counts = {name: len(x) for name, x in ids.items()}
    layout(counts, config.length)  # before it is kept: is every split long enough?
    filler = tokenizer.size - 1 if tokenizer.end is None else tokenizer.end  # which nobody reads
    filled = [np.append(x, np.full(-len(x) % config.length, filler)) for x in ids.values()]
    tokens = np.concatenate(filled).astype(np.uint16 if tokenizer.size <= 2**16 else np.int32)
    save = lambda f: np.save(f, tokens, allow_pickle=False)
    files.keep_array(cached, save, dict(tokenizer=tokenizer.to_json(), counts=counts), "tokens")
    return tokenizer, tokens, counts


MANY = 100  # documents; as many are divided whole, fewer are cut by position

# config.data.split -> the split of each tenth of the texts. Without a test split, the
# valid one is both.
SPLITS = {
    "80/10/10": ("train",) * 8 + ("valid", "test"),
    "90/10": ("train",) * 9 + ("valid",),
    "80/20": ("train",) * 8 + ("valid",) * 2,
}


def by_content(texts: list[str], tenths: Sequence[str]) -> dict[str, list[str]]:
    """Each text by the hash of its contents: the same text twice is in one split."""
    which = [tenths[files.tenth(text)] for text in texts]
    return {
        name: [text for text, its in zip(texts, which, strict=True) if its == name]
        for name in dict.fromkeys(tenths)
    }


def by_position(texts: list[str], tenths: Sequence[str]) -> dict[str, list[str]]:
    """The first tenths of all characters, those after them, and so on; a text that a
    border cuts is two.
    """
    starts = np.cumsum([0, *map(len, texts)]).tolist()
    border = lambda tenth: starts[-1] * tenth // 10
    parts = {}
    for name in dict.fromkeys(tenths):
        low, high = border(tenths.index(name)), border(tenths.index(name) + tenths.count(name))
        cut = [
            text[max(low - start, 0) : max(high - start, 0)]
            for text, start in zip(texts, starts, strict=False)
        ]
        parts[name] = [part for part in cut if part]
    return parts

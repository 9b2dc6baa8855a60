"""Texts that are tokens already, in files that are mapped and never read whole: as many
as a disk holds.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files, tokenizers
from aigc_jax.data.dataset import Dataset, end_of, text_spec
from aigc_jax.data.windows import layout, takers
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import open_regular, require_regular

# Split -> how the names of its files begin.
SPLITS = dict(train=("train",), valid=("val", "valid", "validation"), test=("test",))
SUFFIXES = (".bin", ".npy")
# The first of 256 numbers of 32 bits before the tokens of llm.c's files (Karpathy's
# llm.c, dev/data/data_common.py), and the tokens' type. nanoGPT's files are tokens of
# 16 bits alone.
HEADS: dict[int, np.dtype] = {20240520: np.dtype("<u2"), 20240801: np.dtype("<u4")}
HEAD_BYTES = 1024
PIECE = 2**24  # tokens that are looked at at once


class Joined:
    """Arrays [n] one after another as one; no more is read than is asked for."""

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        self.parts = [p for p in parts if len(p)]
        self.starts = np.cumsum([0, *map(len, self.parts)])
        self.shape, self.dtype = (int(self.starts[-1]),), self.parts[0].dtype
        self.nbytes = self.shape[0] * self.dtype.itemsize

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.concatenate(self.parts).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, at):
        if isinstance(at, slice):
            low, high, _ = at.indices(len(self))
            of = lambda part, start: part[max(low - start, 0) : max(high - start, 0)]
            return np.concatenate(
                [of(*each) for each in zip(self.parts, self.starts[:-1], strict=True)]
            )[:: at.step]
        at = np.asarray(at)
        which, out = (
            np.searchsorted(self.starts, at, side="right") - 1,
            np.empty(at.shape, self.dtype),
        )
        for i in np.unique(which):
            here = which == i
            out[here] = self.parts[i][at[here] - self.starts[i]]
        return out


def tokens(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Files of tokens in the directory data.path, train*, val* and test*, in the order
    of their names: .bin as nanoGPT or llm.c write them, or .npy. What they stand for
    says data.tokenizer_path. Without test files the valid ones are both.
    """
    folder = files.directory(config.path, data_dir, config.name, "token files")
    require(
        config.tokenizer == "file",
        f"config.data.tokenizer = {config.tokenizer!r} must be 'file' for config.data.name "
        "= 'tokens', and "
        "config.data.tokenizer_path name what the tokens stand for: a tokenizer.json, a run "
        "or a GPT-2 directory",
    )
    tokenizer, found = tokenizers.build((), config), {}
    for split, names in SPLITS.items():
        paths = sorted(
            p for p in folder.iterdir() if p.suffix in SUFFIXES and p.stem.startswith(names)
        )
        if not paths:
            require(
                split == "test",
                f"config.data.path = {config.path!r} has no file {names[0]}*.bin or "
                f"{names[0]}*.npy",
            )
            continue
        found[split] = {p: mapped(p) for p in paths}
    kind = next(iter(found["train"].values())).dtype
    for path, part in (item for parts in found.values() for item in parts.items()):
        require(
            part.dtype == kind, f"{path} has tokens of {part.dtype}, and other files have {kind}"
        )
        check(path, part, tokenizer.size)
    counts = {split: sum(map(len, parts.values())) for split, parts in found.items()}
    bounds, end = layout(counts, config.length), end_of(tokenizer)
    pieces = []
    for split, parts in found.items():
        pieces += [*parts.values(), np.full(-counts[split] % config.length, end, kind)]
    total = sum(counts.values())
    sizes = {p.name: len(x) for parts in found.values() for p, x in parts.items()}
    about = dict(
        source=str(folder),
        licence="the user's own",
        holds=sizes,
        text=dict(tokens=total, tokenizer=tokenizer.kind, loses=tokenizer.loses),
    )
    spec = text_spec(tokenizer, (config.length,), bounds["train"][1], end)
    take, vary = takers(config.length)
    return Dataset(
        dict(tokens=Joined(pieces), sizes=tokenizer.sizes),
        bounds,
        take,
        spec,
        about,
        vary,
        tokenizer,
    )


def mapped(path: Path) -> np.ndarray:  # [n]
    """The tokens of a file."""
    require_regular(path)
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as e:  # a damaged file is damaged in many ways
            raise UserError(f"{path} cannot be read: {first_line(e)}") from None
        require(
            array.ndim == 1 and array.dtype.kind in "iu" and array.dtype.itemsize <= 4,
            f"{path} is {array.dtype} {array.shape}; tokens are whole numbers of at most 32 "
            "bits, [n]",
        )
        require(
            array.dtype.isnative,
            f"{path} is {array.dtype.str}, in another byte order than this machine's: convert it",
        )
        return array
    with open_regular(path) as f:
        size = os.fstat(f.fileno()).st_size
        head = np.frombuffer(f.read(HEAD_BYTES), np.uint8)
    first = head[:12].view("<i4").tolist() if len(head) == HEAD_BYTES else []
    kind: np.dtype = HEADS[first[0]] if first and first[0] in HEADS else np.dtype("<u2")
    skip = HEAD_BYTES if first and first[0] in HEADS else 0
    count = first[2] if skip else size // 2
    require(
        size > skip and skip + count * kind.itemsize == size,
        f"{path} has {size:,} bytes: "
        + (
            f"its head says {count:,} tokens of {kind.itemsize} bytes"
            if skip
            else "tokens have two each"
        ),
    )
    return np.memmap(path, kind, "r", offset=skip, shape=(count,))


def check(path: Path, array: np.ndarray, size: int) -> None:
    """A token that stands for nothing is a UserError."""
    for low in range(0, len(array), PIECE):
        piece = array[low : low + PIECE]
        if int(piece.max()) >= size or int(piece.min()) < 0:
            place = low + int(np.argmax((piece >= size) | (piece < 0)))
            raise UserError(
                f"{path}: token {place:,} is {array[place]}, and config.data.tokenizer_path "
                f"has {size:,}: they are another tokenizer's"
            )

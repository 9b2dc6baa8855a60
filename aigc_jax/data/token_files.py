"""Tokenized texts in memory-mapped files, which are never read into memory in full:
their size is limited only by the disk.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files, tokenizers
from aigc_jax.data.dataset import Dataset, end_of, text_spec
from aigc_jax.data.windows import window_layout, window_readers
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import open_regular, require_regular

# Split -> prefixes of the names of its files.
SPLITS = dict(train=("train",), valid=("val", "valid", "validation"), test=("test",))
SUFFIXES = (".bin", ".npy")
# Magic number -> dtype of the tokens: llm.c's files begin with a header of 256 int32
# that starts with this number (Karpathy's llm.c, dev/data/data_common.py).
# nanoGPT's files have no header, and tokens of 16 bits.
HEADS: dict[int, np.dtype] = {20240520: np.dtype("<u2"), 20240801: np.dtype("<u4")}
HEAD_BYTES = 1024
PIECE = 2**24  # tokens that are checked at once


class ConcatenatedArray:
    """Arrays [n], concatenated into one array that reads only indexed elements."""

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


def map_files(folder: Path, config_path: str, size: int) -> dict[str, dict[Path, np.ndarray]]:
    """Return {split: {file: memory-mapped tokens}} of a directory.

    Args:
      folder: the directory.
      config_path: its name in the config, for error messages.
      size: the number of tokens of the vocabulary.

    Raises:
      UserError: files are missing, differ in dtype, or have tokens not below `size`.
    """
    arrays = {}
    for split, names in SPLITS.items():
        paths = sorted(
            p for p in folder.iterdir() if p.suffix in SUFFIXES and p.stem.startswith(names)
        )
        require(
            paths or split == "test",
            f"config.data.path = {config_path!r} has no file {names[0]}*.bin or {names[0]}*.npy",
        )
        if paths:
            arrays[split] = {p: map_tokens(p) for p in paths}
    kind = next(iter(arrays["train"].values())).dtype
    for path, part in (item for parts in arrays.values() for item in parts.items()):
        require(
            part.dtype == kind, f"{path} has tokens of {part.dtype}, and other files have {kind}"
        )
        check_tokens(path, part, size)
    return arrays


def tokens(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load tokenized texts from the files train*, val* and test* in the directory
    data.path, sorted by name: .bin in the format of nanoGPT or llm.c, or .npy.
    data.tokenizer_path names the tokenizer that made them. Without test files, the
    valid split is used for both.
    """
    folder = files.data_directory(config.path, data_dir, config.name, "token files")
    require(
        config.tokenizer == "file",
        f"config.data.tokenizer = {config.tokenizer!r} must be 'file' for config.data.name "
        "= 'tokens', and "
        "config.data.tokenizer_path name the tokenizer of the tokens: a tokenizer.json, a run "
        "or a GPT-2 directory",
    )
    tokenizer = tokenizers.build((), config)
    arrays = map_files(folder, config.path, tokenizer.size)
    kind = next(iter(arrays["train"].values())).dtype
    counts = {split: sum(map(len, parts.values())) for split, parts in arrays.items()}
    bounds, end = window_layout(counts, config.length), end_of(tokenizer)
    pieces = []
    for split, parts in arrays.items():
        pieces += [*parts.values(), np.full(-counts[split] % config.length, end, kind)]
    total = sum(counts.values())
    sizes = {p.name: len(x) for parts in arrays.values() for p, x in parts.items()}
    about = dict(
        source=str(folder),
        licence="the user's own",
        holds=sizes,
        text=dict(tokens=total, tokenizer=tokenizer.kind, loses=tokenizer.loses),
    )
    spec = text_spec(tokenizer, (config.length,), bounds["train"][1], end)
    take, vary = window_readers(config.length)
    return Dataset(
        dict(tokens=ConcatenatedArray(pieces), sizes=tokenizer.sizes),
        bounds,
        take,
        spec,
        about,
        vary,
        tokenizer,
    )


def map_tokens(path: Path) -> np.ndarray:  # [n]
    """Return the memory-mapped tokens of a file; raise a UserError where its format is
    invalid.
    """
    require_regular(path)
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as e:  # a damaged file raises exceptions of many types
            raise UserError(f"{path} cannot be read: {first_line(e)}") from None
        require(
            array.ndim == 1 and array.dtype.kind in "iu" and array.dtype.itemsize <= 4,
            f"{path} is {array.dtype} {array.shape}; tokens are integers of at most 32 bits, [n]",
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
            f"its header declares {count:,} tokens of {kind.itemsize} bytes"
            if skip
            else "a token has two"
        ),
    )
    return np.memmap(path, kind, "r", offset=skip, shape=(count,))


def check_tokens(path: Path, array: np.ndarray, size: int) -> None:
    """Raise a UserError where a token is not in a vocabulary of `size` tokens."""
    for low in range(0, len(array), PIECE):
        piece = array[low : low + PIECE]
        if int(piece.max()) >= size or int(piece.min()) < 0:
            place = low + int(np.argmax((piece >= size) | (piece < 0)))
            raise UserError(
                f"{path}: token {place:,} is {array[place]}, and config.data.tokenizer_path "
                f"has {size:,} tokens: another tokenizer made the file"
            )

"""Tokenized texts in memory-mapped files, which are never read into memory in full:
their size is limited only by the disk.
"""

import os
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files, tokenizers
from aigc_jax.data.arrays import ConcatenatedArray
from aigc_jax.data.dataset import Dataset, make_text_spec, require_end_token
from aigc_jax.data.windows import make_window_bounds, make_window_readers
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import open_regular_file, require_regular_file

# Split -> prefixes of the names of its files.
SPLITS = dict(train=("train",), valid=("val", "valid", "validation"), test=("test",))
SUFFIXES = (".bin", ".npy")
# Magic number -> dtype of the tokens: llm.c's files begin with a header of 256 int32
# that starts with this number (Karpathy's llm.c, dev/data/data_common.py).
# nanoGPT's files have no header, and tokens of 16 bits.
HEADS: dict[int, np.dtype] = {20240520: np.dtype("<u2"), 20240801: np.dtype("<u4")}
HEAD_BYTES = 1024
PIECE = 2**24  # tokens that are checked at once


def map_split_files(
    directory: Path, config_path: str, vocabulary_size: int
) -> dict[str, dict[Path, np.ndarray]]:  # -> {split: {file: tokens [n]}}
    """Return {split: {file: memory-mapped tokens}} of a directory.

    Args:
      directory: of the files.
      config_path: its name in the config, for error messages.
      vocabulary_size: the number of tokens.

    Raises:
      UserError: files are missing, differ in dtype, or have tokens not below
        `vocabulary_size`.
    """
    arrays = {}
    for split, names in SPLITS.items():
        paths = sorted(
            p for p in directory.iterdir() if p.suffix in SUFFIXES and p.stem.startswith(names)
        )
        require(
            paths or split == "test",
            f"config.data.path = {config_path!r} has no file {names[0]}*.bin or {names[0]}*.npy",
        )
        if paths:
            arrays[split] = {p: map_token_file(p) for p in paths}
    kind = next(iter(arrays["train"].values())).dtype
    for path, part in (item for parts in arrays.values() for item in parts.items()):
        require(
            part.dtype == kind, f"{path} has tokens of {part.dtype}, and other files have {kind}"
        )
        check_tokens_in_vocabulary(path, part, vocabulary_size)
    return arrays


def load_token_files(config: ConfigDict, data_dir: str, _download: bool) -> Dataset:
    """Load tokenized texts from the files train*, val* and test* in the directory
    data.path, sorted by name: .bin in the format of nanoGPT or llm.c, or .npy.
    data.tokenizer_path names the tokenizer that made them. Without test files, the
    valid split is used for both.
    """
    folder = files.find_config_directory(config.path, data_dir, config.name, "token files")
    require(
        config.tokenizer == "file",
        f"config.data.tokenizer = {config.tokenizer!r} must be 'file' for config.data.name "
        "= 'tokens', and "
        "config.data.tokenizer_path name the tokenizer of the tokens: a tokenizer.json, a run "
        "or a GPT-2 directory",
    )
    tokenizer = tokenizers.build((), config)
    arrays = map_split_files(folder, config.path, tokenizer.size)
    kind = next(iter(arrays["train"].values())).dtype
    counts = {split: sum(map(len, parts.values())) for split, parts in arrays.items()}
    bounds, end = make_window_bounds(counts, config.length), require_end_token(tokenizer)
    pieces = []
    for split, parts in arrays.items():
        pieces += [*parts.values(), np.full(-counts[split] % config.length, end, kind)]
    total = sum(counts.values())
    sizes = {p.name: len(x) for parts in arrays.values() for p, x in parts.items()}
    about = dict(
        source=str(folder),
        licence="the user's own",
        holds=sizes,
        text=dict(tokens=total, tokenizer=config.tokenizer, loses=tokenizer.loses),
    )
    spec = make_text_spec(tokenizer, (config.length,), bounds["train"][1], end)
    take, vary = make_window_readers(config.length)
    return Dataset(
        dict(tokens=ConcatenatedArray(pieces), sizes=tokenizer.token_sizes),
        bounds,
        take,
        spec,
        about,
        vary,
        tokenizer,
    )


def map_token_file(path: Path) -> np.ndarray:  # -> memory-mapped tokens [n]
    """Return the memory-mapped tokens of a file; raise a UserError where its format is
    invalid.
    """
    require_regular_file(path)
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
    with open_regular_file(path) as f:
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


def check_tokens_in_vocabulary(path: Path, tokens: np.ndarray, vocabulary_size: int) -> None:
    """Raise a UserError where a token is not in the vocabulary.

    Args:
      path: the file, for the message.
      tokens: its tokens [n].
      vocabulary_size: the number of tokens.
    """
    for low in range(0, len(tokens), PIECE):
        piece = tokens[low : low + PIECE]
        if int(piece.max()) >= vocabulary_size or int(piece.min()) < 0:
            place = low + int(np.argmax((piece >= vocabulary_size) | (piece < 0)))
            raise UserError(
                f"{path}: token {place:,} is {tokens[place]}, and config.data.tokenizer_path "
                f"has {vocabulary_size:,} tokens: another tokenizer made the file"
            )

"""A cache of arrays in the user's cache directory: decoded images, tokens."""

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aigc_jax.data.fingerprints import hash_files
from aigc_jax.utils import documents
from aigc_jax.utils.terminal import print_warning


def write_npy(
    file: BinaryIO, pieces: Iterable[np.ndarray], dtype: Any, row_shape: tuple[int, ...] = ()
) -> None:
    """Write arrays [n, ...] one after another as one array to an .npy file as they
    arrive.

    Args:
      file: a binary file, open for writing and seeking.
      pieces: arrays of this dtype, whose values are the next rows.
      dtype: of the array.
      row_shape: the shape of a row.
    """
    descr, count = np.lib.format.dtype_to_descr(np.dtype(dtype)), 0
    head = lambda: np.lib.format.write_array_header_1_0(
        file, dict(descr=descr, fortran_order=False, shape=(count, *row_shape))
    )
    head()
    for piece in pieces:
        file.write(piece.tobytes())
        count += piece.size // math.prod(row_shape)
    file.seek(0)
    # The header has the same length for any number of rows: NumPy reserves its digits.
    head()


def try_write(
    json_path: Path, write_npy: Callable[[BinaryIO], Any], description: dict, noun: str
) -> bool:  # whether it was written
    """Write an array to the cache, and return whether that succeeded. The .npy file is
    written before the description, whose existence implies that of the array.

    Args:
      json_path: the path of the description; the array has the suffix .npy instead.
      write_npy: writes the array, as .npy, to an open binary file.
      description: a JSON object, to which the fingerprint of the array is added. It is
        written last, so that `write_npy` may complete it.
      noun: the kind of the contents, for warnings.
    """
    array = json_path.with_suffix(".npy")
    write_description = lambda f: f.write(
        documents.encode(json_path, description | dict(array_sha256=hash_files([array])), "cache")
    )
    return try_write_file(array, write_npy, noun) and try_write_file(
        json_path, write_description, noun
    )


def load(json_path: Path) -> tuple[np.ndarray, dict]:  # array, description
    """Return the memory-mapped array and its description, which `try_write`
    wrote.

    Raises:
      OSError: the files do not exist.
      Exception: of another type, where the files are damaged.
    """
    description = documents.read(json_path, "cache")
    if description is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(json_path))
    if hash_files([json_path.with_suffix(".npy")]) != description["array_sha256"]:
        raise ValueError("the SHA-256 of the array is not the stored one")
    return np.load(json_path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False), description


def try_write_file(
    path: Path, write: Callable[[BinaryIO], Any], noun: str
) -> bool:  # whether it was written
    """Write a file of the cache atomically, and return whether that succeeded. An
    OSError prints a warning, and the next run computes the contents again.

    Args:
      path: the path of the file.
      write: writes the contents to an open binary file.
      noun: the kind of the contents, for warnings.
    """
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as f:
            write(f)
        os.replace(part, path)
        return True
    except BaseException as e:
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(e, OSError):
            raise
        print_warning(f"{noun} cannot be cached in {path.parent}: {e.strerror or e}")
        return False

"""Fingerprints of data files that may be too large to be read completely: names, sizes,
and the contents of evenly spaced pieces.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aigc_jax.utils.files import open_regular_file

# The most bytes of all files of a data set that are hashed, and the bytes of a piece.
HASH_BYTES, PIECE_BYTES = 2**28, 2**14


def hash_files(paths: Sequence[Path]) -> str:  # SHA-256
    """Return the SHA-256 of the names, sizes and contents of files.

    Of files with at most HASH_BYTES bytes in total, all bytes are hashed. Of more, each
    file has a share of HASH_BYTES in proportion to its size: evenly spaced pieces, the
    first and the last included, which distinguish files of the same size.
    """
    sizes = [path.stat().st_size for path in paths]
    share = min(1.0, HASH_BYTES / max(sum(sizes), 1))
    content = [
        (path.name, size, hash_pieces(path, share)) for path, size in zip(paths, sizes, strict=True)
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def hash_pieces(path: Path, share: float) -> str:  # SHA-256
    """Return the SHA-256 of evenly spaced pieces of a file.

    Args:
      path: the file.
      share: fraction of the file to hash; 1: all bytes. At least the first and the last
        piece are hashed.
    """
    hashed, size = hashlib.sha256(), path.stat().st_size
    starts: Sequence[int] = range(0, size, PIECE_BYTES)
    if share < 1 and len(starts) > 2:
        count = max(2, int(share * len(starts)))
        starts = np.linspace(0, size - PIECE_BYTES, count).astype(np.int64).tolist()
    with open_regular_file(path) as f:
        for start in starts:
            f.seek(start)
            hashed.update(f.read(PIECE_BYTES))
    return hashed.hexdigest()

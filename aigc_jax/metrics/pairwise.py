"""Distances between many vectors and many others, a block of rows at a time."""

from collections.abc import Iterable, Iterator

import numpy as np

BLOCK = 2**22  # distances at once: 32 MB in float64, of which two or three are there at a time


def rows(n: int, m: int) -> Iterator[slice]:
    """Slices of n rows, so short that rows of m numbers for each fit into a block."""
    step = max(1, BLOCK // max(m, 1))
    return (slice(i, i + step) for i in range(0, n, step))


def squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # [n, D], [m, D] -> [n, m]
    """|a_i - b_j|^2 = |a_i|^2 + |b_j|^2 - 2 a_i . b_j. What lies within its rounding of
    zero is zero: a vector's distance from its copy.
    """
    lengths = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)
    out = a @ b.T
    out *= -2
    out += lengths
    out[out < 1e3 * np.finfo(out.dtype).eps * lengths] = 0
    return out


def radii(x: np.ndarray, k: int) -> np.ndarray:  # [n, D] -> [n]
    """The squared distance of each from the k-th nearest of the others."""
    # A copy: a view would keep its whole block until the last one is there.
    return np.concatenate(
        [np.partition(squares(x[part], x), k, axis=1)[:, k].copy() for part in rows(len(x), len(x))]
    )


def nearest(
    x: np.ndarray, blocks: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:  # [n, ...], blocks of [m, ...] -> [n, ...], [n]
    """The nearest of the others to each, and its distance. The others come in blocks,
    of which no two need be in memory at once. The nearest is found in float32, one
    among those that are as near but for rounding; its distance is that of float64.
    """
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    found, least = np.empty_like(flat), np.full(len(x), np.inf, np.float32)
    for block in blocks:
        others = np.asarray(block, np.float32).reshape(len(block), -1)
        half = np.einsum("md,md->m", others, others) / 2
        for part in rows(len(x), len(others)):
            apart = half - flat[part] @ others.T  # |x - other|^2 / 2, less |x|^2 / 2
            place, value = apart.argmin(1), apart.min(1)
            nearer = ~(value >= least[part])  # where a distance is nan, any other will do
            found[part][nearer] = others[place[nearer]]
            least[part] = np.minimum(least[part], value)
    distances = [
        np.sqrt((np.subtract(flat[part], found[part], dtype=np.float64) ** 2).sum(1))
        for part in rows(*flat.shape)
    ]
    return found.reshape(x.shape), np.concatenate(distances)

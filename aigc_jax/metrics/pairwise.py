"""Distances between two sets of vectors, computed in blocks of rows."""

from collections.abc import Iterable, Iterator

import numpy as np

BLOCK = 2**22  # distances per block: 32 MB in float64; two or three blocks exist at a time


def iterate_row_slices(num_rows: int, row_size: int) -> Iterator[slice]:
    """Return slices of the rows such that `row_size` numbers per row fit into a
    block.
    """
    step = max(1, BLOCK // max(row_size, 1))
    return (slice(i, i + step) for i in range(0, num_rows, step))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # [n, D], [m, D] -> [n, m]
    """Return |a_i - b_j|^2 = |a_i|^2 + |b_j|^2 - 2 a_i . b_j.

    Values within rounding error of 0 are 0, so that the distance of a vector from its
    copy is exactly 0.
    """
    lengths = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)
    out = a @ b.T
    out *= -2
    out += lengths
    out[out < 1e3 * np.finfo(out.dtype).eps * lengths] = 0
    return out


def kth_neighbour_squared_distances(x: np.ndarray, k: int) -> np.ndarray:  # [n, D] -> [n]
    """Return the squared distance of each vector from the k-th nearest other vector.

    Args:
      x: vectors [n, D].
      k: 1 for the nearest other vector; less than n.
    """
    # Copied, since a view would retain its entire block until the concatenation.
    return np.concatenate(
        [
            np.partition(squared_distances(x[part], x), k, axis=1)[:, k].copy()
            for part in iterate_row_slices(len(x), len(x))
        ]
    )


def find_nearest_neighbours(
    x: np.ndarray, blocks: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:  # [n, ...], [m, ...] each -> float32 [n, ...], distances [n]
    """Return the nearest neighbour of each x in `blocks`, and its distance.

    Only one block needs to be in memory at a time. The search is in float32, so that a
    neighbour is nearest up to rounding; the distances are computed in float64.

    Args:
      x: vectors of any shape [n, ...].
      blocks: blocks [m, ...] of the candidates, iterated once.

    Returns:
      The neighbours [n, ...] in float32, and the Euclidean distances [n].
    """
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    neighbours, smallest = np.empty_like(flat), np.full(len(x), np.inf, np.float32)
    for block in blocks:
        others = np.asarray(block, np.float32).reshape(len(block), -1)
        half = np.einsum("md,md->m", others, others) / 2
        for part in iterate_row_slices(len(x), len(others)):
            scores = half - flat[part] @ others.T  # |x - other|^2 / 2, less |x|^2 / 2
            indices, values = scores.argmin(1), scores.min(1)
            nearer = ~(values >= smallest[part])  # a nan distance is replaced by any other
            neighbours[part][nearer] = others[indices[nearer]]
            smallest[part] = np.minimum(smallest[part], values)
    distances = [
        np.sqrt((np.subtract(flat[part], neighbours[part], dtype=np.float64) ** 2).sum(1))
        for part in iterate_row_slices(*flat.shape)
    ]
    return neighbours.reshape(x.shape), np.concatenate(distances)

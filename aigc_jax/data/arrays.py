"""Arrays that are larger than the memory."""

from collections.abc import Iterable

import numpy as np


class ConcatenatedArray:
    """Arrays [n], concatenated into one array that reads only indexed elements.

    Args:
      parts: the arrays, of one dtype.
      identity: a hash that identifies the contents; "": `hash_arrays_and_splits` reads
        them.
    """

    def __init__(self, parts: Iterable[np.ndarray], identity: str = "") -> None:
        self.identity = identity
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

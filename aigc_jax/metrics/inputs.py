"""What a metric is given of a trial, and what several metrics do with it."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.data.order import fixed_order

MOST = 10_000  # examples of each kind where all pairs are compared
KEPT = 3  # sets of pictures whose features are remembered: the examples, the samples, and one more


class Given(NamedTuple):
    """The only argument of a metric."""

    # (name of a sampler) -> config.metric_samples of its samples, as files hold them;
    # what they are conditioned on are examples of the split in `fixed_order`
    draw: Callable
    split: str  # that is judged
    of: Callable  # (split) -> its examples as the networks see them, {"x": [n, ...], ...}
    spec: Any  # of the data
    # images [n, H, W, C] in [-1, 1] -> (features [n, D], class probabilities [n, K])
    extract: Callable
    # () -> the classes [n] that samples of "prior" were drawn for, as frequent as in
    # the split; None where it knows none
    labels: Callable = lambda: None
    # (split) -> what `of` returns, in parts: a split may be too large for memory
    blocks: Callable | None = None

    @property
    def real(self) -> dict:
        """The examples of the split that is judged."""
        return self.of(self.split)

    def features(self) -> tuple[np.ndarray, np.ndarray]:  # -> [m, D], [n, D]
        """Of the split's examples and of the samples, in float64."""
        of = lambda pictures: np.asarray(self.extract(pictures)[0], np.float64)
        return of(self.real["x"]), of(self.draw("prior"))


def take_part(x: np.ndarray, most: int) -> np.ndarray:  # [n, ...] -> [at most `most`, ...]
    """The first `most` of them in `fixed_order`: a random part, and always the same."""
    return x if len(x) <= most else x[np.sort(fixed_order(np.arange(most), len(x)))]


def equally(a: np.ndarray, b: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """As many of one as of the other."""
    count = min(len(a), len(b), most)
    return take_part(a, count), take_part(b, count)


def in_batches(look: Callable, pictures: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """look(pictures), a tuple of arrays [n, ...], `size` of them at once, the last ones
    filled up with zeros: one compilation.
    """
    parts = []
    for first in range(0, max(1, len(pictures)), size):
        part = np.asarray(pictures[first : first + size], np.float32)
        filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
        parts.append([np.asarray(x)[: len(part)] for x in look(filled)])
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def remembered(extract: Callable, kept: int = KEPT) -> Callable:
    """`extract`, which sees the same pictures only once as long as they are among the
    last few sets. What is not finite has features and probabilities nan, whatever a
    network makes of it.
    """
    memory = OrderedDict()

    def look(pictures):
        pictures = np.ascontiguousarray(pictures)
        key = hashlib.sha256(pictures.view(np.uint8).data).digest() + str(pictures.shape).encode()
        if key not in memory:
            broken = ~np.isfinite(pictures.reshape(len(pictures), -1)).all(1)
            memory[key] = tuple(np.where(broken[:, None], np.nan, x) for x in extract(pictures))
            if len(memory) > kept:
                memory.popitem(last=False)
        memory.move_to_end(key)
        return memory[key]

    return look

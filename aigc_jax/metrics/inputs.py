"""The inputs of metrics, and functions of them that several metrics share."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.data.order import fixed_order

MOST = 10_000  # examples of each kind, for metrics that compare all pairs
KEPT = 3  # image sets whose features are cached: the examples, the samples and one more


class MetricInputs(NamedTuple):
    """The argument of a metric."""

    # (name of a sampler) -> config.metric_samples of its samples, as saved in files;
    # conditional samplers are conditioned on examples of the split in `fixed_order`
    draw: Callable
    split: str  # to evaluate
    of: Callable  # (split) -> its examples as network inputs, {"x": [n, ...], ...}
    spec: Any  # of the data
    # images [n, H, W, C] in [-1, 1] -> (features [n, D], class probabilities [n, K])
    extract: Callable
    # () -> the classes [n] of the samples of "prior", as frequent as in the split; None
    # for unconditional samplers
    labels: Callable = lambda: None
    # (split) -> blocks of `of(split)`, for splits that exceed the memory
    blocks: Callable = lambda split: iter(())

    @property
    def real(self) -> dict:
        """The examples of the evaluated split."""
        return self.of(self.split)

    def features(self) -> tuple[np.ndarray, np.ndarray]:  # -> [m, D], [n, D]
        """Return the features of the split's examples and the samples, in float64."""
        of = lambda pictures: np.asarray(self.extract(pictures)[0], np.float64)
        return of(self.real["x"]), of(self.draw("prior"))


def random_part(x: np.ndarray, most: int) -> np.ndarray:  # [n, ...] -> [at most `most`, ...]
    """Return at most `most` examples: the first in the pseudo-random `fixed_order`."""
    return x if len(x) <= most else x[np.sort(fixed_order(np.arange(most), len(x)))]


def equal_parts(a: np.ndarray, b: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Return equally large random parts of both sets, at most `most` examples each."""
    count = min(len(a), len(b), most)
    return random_part(a, count), random_part(b, count)


def in_batches(look: Callable, pictures: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Return look(pictures), a tuple of arrays [n, ...], computed in batches of `size`
    images. The last batch is padded with zeros, so that `look` is compiled only once.
    """
    parts = []
    for first in range(0, max(1, len(pictures)), size):
        part = np.asarray(pictures[first : first + size], np.float32)
        filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
        parts.append([np.asarray(x)[: len(part)] for x in look(filled)])
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def cache_features(extract: Callable, kept: int = KEPT) -> Callable:
    """Return `extract` with a cache of the results for the last `kept` sets of images.

    Images that are not finite have nan features and probabilities, whatever the network
    returns for them.
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

"""The inputs of metrics, and functions of them that several metrics share."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.data.order import fixed_order

MOST = 10_000  # examples of each kind, for metrics that compare all pairs
MAX_CACHED_SETS = 3  # image sets whose features are cached: the examples, the samples and one more


class MetricInputs(NamedTuple):
    """The argument of a metric."""

    # (name of a sampler) -> config.num_metric_samples of its samples, as saved in
    # files; conditional samplers are conditioned on examples of the split in
    # `fixed_order`
    draw: Callable
    split: str  # to evaluate
    examples: Callable  # (split) -> its examples as network inputs, {"x": [n, ...], ...}
    spec: Any  # of the data
    # images [n, H, W, C] in [-1, 1] -> (features [n, D], class probabilities [n, K])
    extract: Callable
    # () -> the classes [n] of the samples of "prior", as frequent as in the split; None
    # for unconditional samplers
    labels: Callable = lambda: None
    # (split) -> blocks of `examples(split)`, for splits that exceed the memory
    blocks: Callable = lambda split: iter(())

    @property
    def real(self) -> dict:
        """The examples of the evaluated split."""
        return self.examples(self.split)

    def features(self) -> tuple[np.ndarray, np.ndarray]:  # -> [m, D], [n, D]
        """Return the features of the split's examples and the samples, in float64."""
        features_of = lambda images: np.asarray(self.extract(images)[0], np.float64)
        return features_of(self.real["x"]), features_of(self.draw("prior"))


def random_part(x: np.ndarray, most: int) -> np.ndarray:  # [n, ...] -> [at most `most`, ...]
    """Return at most `most` examples: the first in the pseudo-random `fixed_order`."""
    return x if len(x) <= most else x[np.sort(fixed_order(np.arange(most), len(x)))]


def equal_parts(a: np.ndarray, b: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Return equally large random parts of both sets, at most `most` examples each."""
    count = min(len(a), len(b), most)
    return random_part(a, count), random_part(b, count)


def in_batches(extract: Callable, images: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Return extract(images), a tuple of arrays [n, ...], computed in batches of `size`
    images. The last batch is padded with zeros, so that `extract` compiles only once.
    """
    parts = []
    for first in range(0, max(1, len(images)), size):
        part = np.asarray(images[first : first + size], np.float32)
        padded = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
        parts.append([np.asarray(x)[: len(part)] for x in extract(padded)])
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def cache_features(extract: Callable, max_sets: int = MAX_CACHED_SETS) -> Callable:
    """Return `extract` with a cache of the results for the last `max_sets` image sets.

    Images that are not finite have nan features and probabilities, whatever the network
    returns for them.
    """
    cache = OrderedDict()

    def cached_extract(images):
        images = np.ascontiguousarray(images)
        key = hashlib.sha256(images.view(np.uint8).data).digest() + str(images.shape).encode()
        if key not in cache:
            invalid = ~np.isfinite(images.reshape(len(images), -1)).all(1)
            cache[key] = tuple(np.where(invalid[:, None], np.nan, x) for x in extract(images))
            if len(cache) > max_sets:
                cache.popitem(last=False)
        cache.move_to_end(key)
        return cache[key]

    return cached_extract

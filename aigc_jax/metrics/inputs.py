"""The inputs of metrics, and functions of them that several metrics share."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.core.distributed import run_ahead
from aigc_jax.data.order import permute_fixed

MOST = 10_000  # examples of each kind, for metrics that compare all pairs
MAX_CACHED_SETS = 3  # image sets whose features are cached: the examples, the samples and one more


class MetricInputs(NamedTuple):
    """The argument of a metric."""

    # (name of a sampler) -> config.num_metric_samples of its samples, as saved in
    # files; conditional samplers are conditioned on examples of the split in the order
    # of `permute_fixed`
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
    def real_examples(self) -> dict[str, np.ndarray]:  # {"x": [n, ...], ...} of `split`
        """The examples of the evaluated split."""
        return self.examples(self.split)

    def extract_features(self) -> tuple[np.ndarray, np.ndarray]:  # real [m, D], samples [n, D]
        """Return the features of the split's examples and the samples, in float64."""
        features_of = lambda images: np.asarray(self.extract(images)[0], np.float64)
        return features_of(self.real_examples["x"]), features_of(self.draw("prior"))


def take_random_subset(
    x: np.ndarray, max_examples: int
) -> np.ndarray:  # [n, ...] -> [min(n, max_examples), ...], always the same rows
    """Return at most `max_examples` examples: the first in the order of
    `permute_fixed`.

    Args:
      x: examples [n, ...], in any order.
      max_examples: of more, the same rows are chosen in every call, in ascending order.
    """
    return (
        x if len(x) <= max_examples else x[np.sort(permute_fixed(np.arange(max_examples), len(x)))]
    )


def take_equal_random_subsets(
    a: np.ndarray, b: np.ndarray, max_examples: int = MOST
) -> tuple[np.ndarray, np.ndarray]:  # [n, ...], [m, ...] -> [k, ...], [k, ...]
    """Return equally large random subsets of both sets, k = min(n, m, max_examples).

    Args:
      a: examples [n, ...].
      b: examples [m, ...].
      max_examples: of each set.
    """
    count = min(len(a), len(b), max_examples)
    return take_random_subset(a, count), take_random_subset(b, count)


def apply_in_batches(
    extract: Callable, images: np.ndarray, batch_size: int
) -> tuple[np.ndarray, ...]:  # [n, H, W, C] -> arrays [n, ...]
    """Return extract(images), a tuple of arrays [n, ...], computed in batches. The last
    batch is padded with zeros, so that `extract` compiles only once.

    Args:
      extract: images float32 [B, H, W, C] -> a tuple of arrays [B, ...].
      images: [n, H, W, C].
      batch_size: images of a batch, B.
    """

    def run_batch(first: int) -> tuple[int, Any]:  # -> number of images, arrays [B, ...]
        part = np.asarray(images[first : first + batch_size], np.float32)
        padding = np.zeros((batch_size - len(part), *part.shape[1:]), np.float32)
        return len(part), extract(np.concatenate([part, padding]))

    batches = map(run_batch, range(0, max(1, len(images)), batch_size))
    parts = [[np.asarray(x)[:n] for x in arrays] for n, arrays in run_ahead(batches)]
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def make_cached_extractor(
    extract: Callable, max_sets: int = MAX_CACHED_SETS
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:  # [n, H, W, C] -> [n, D], [n, K]
    """Return `extract` with a cache of the results for the last `max_sets` image sets.

    Images that are not finite have nan features and probabilities, whatever the network
    returns for them.

    Args:
      extract: images [n, H, W, C] -> (features [n, D], probabilities [n, K]).
      max_sets: number of image sets, identified by the SHA-256 of their values and
        their shape, whose results are cached.
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

"""Distances of samples to training examples, which detect copies."""

import math
from collections.abc import Iterable

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs, take_random_subset
from aigc_jax.metrics.pairwise import find_nearest_neighbours

# A sample counts as a copy if its distance to a training example is within this
# quantile of the distances of held-out examples.
NEAR = 0.01


def copy_statistics(
    samples: np.ndarray, held_out: np.ndarray, train_blocks: Iterable[np.ndarray]
) -> dict[str, float]:  # [n, ...], [m, ...], blocks of [N, ...] -> neighbour_distance, copies
    """Return statistics of d(x) = min over the training examples t of |x - t|.

    neighbour_distance   mean d of the samples over mean d of held-out examples: 1 for
                         fresh data, 0 for copies
    copies               the share of samples with d at most the 1st percentile of d
                         among the held-out examples: 0.01 for fresh data

    Args:
      samples: generated examples [n, ...].
      held_out: examples [m, ...] of another split than the training split.
      train_blocks: blocks [N, ...] of the training examples, which are read once.
    """
    if not np.isfinite(samples).all():
        return dict(neighbour_distance=math.nan, copies=math.nan)
    _, distances = find_nearest_neighbours(np.concatenate([samples, held_out]), train_blocks)
    ours, theirs = np.split(distances, [len(samples)])
    ratio = ours.mean() / theirs.mean() if theirs.mean() > 0 else math.nan
    return dict(
        neighbour_distance=float(ratio), copies=float((ours <= np.quantile(theirs, NEAR)).mean())
    )


def neighbours(inputs: MetricInputs) -> dict[str, float]:  # neighbour_distance, copies
    """Mean distance of samples to their nearest training examples in pixels, divided by
    that of held-out examples; the share of near copies.

    Held-out examples are those of the split, or the valid examples for the training
    split, at most the number of samples. Distances are Euclidean: a copy shifted by one
    pixel is not detected.
    """
    samples = inputs.draw("prior")
    held_out = inputs.examples("valid" if inputs.split == "train" else inputs.split)["x"]
    train = (block["x"] for block in inputs.blocks("train"))
    return copy_statistics(samples, take_random_subset(held_out, len(samples)), train)

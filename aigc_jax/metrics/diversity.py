"""Distances between samples, which are 0 for a completely collapsed generator."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs, take_random_subset
from aigc_jax.metrics.pairwise import squared_distances

MOST = 1000  # examples of each kind; all pairs are compared


def mean_pairwise_distance(x: np.ndarray) -> float:  # [n, ...] -> []
    """Return the mean Euclidean distance |x_i - x_j| over all pairs i < j, in the units
    of x.
    """
    x = np.asarray(x.reshape(len(x), -1), np.float64)
    return float(np.sqrt(squared_distances(x, x)).sum() / (len(x) * (len(x) - 1)))


def diversity(inputs: MetricInputs) -> dict[str, float]:  # of samples / of real examples
    """The mean distance between samples divided by the mean distance between real
    examples: 1 for equal diversity, 0 for identical samples.

    It does not measure fidelity. At most 1,000 of each kind are used.
    """
    samples, real = (
        take_random_subset(x, MOST) for x in (inputs.draw("prior"), inputs.real_examples["x"])
    )
    if len(samples) < 2 or len(real) < 2:
        return dict(diversity=math.nan)
    return dict(diversity=mean_pairwise_distance(samples) / mean_pairwise_distance(real))

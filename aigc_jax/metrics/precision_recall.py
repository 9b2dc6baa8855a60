"""Mutual coverage of two sets of features, by nearest-neighbour balls."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs, take_equal_random_subsets
from aigc_jax.metrics.pairwise import (
    iterate_row_slices,
    kth_neighbour_squared_distances,
    squared_distances,
)

NAMES = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5


def prdc(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS
) -> dict[str, float]:  # [n, D], [m, D] -> precision, recall, density, coverage
    """Return precision, recall, density and coverage, defined by the ball B(x) around
    each x whose radius is the distance to its k-th nearest neighbour of the same kind.

    precision   share of fake examples in some B(real) (Kynkäänniemi et al. 2019, eq. 1
                and 2)
    recall      share of real examples in some B(fake) (ibid.)
    density     number of balls B(real) that contain a fake example, in the mean over
                the fake examples, divided by k (Naeem et al. 2020, eq. 3)
    coverage    share of balls B(real) that contain a fake example (ibid., eq. 4)

    Balls are open, |x - y| < radius, as in Naeem et al.'s program `prdc`: the boundary
    is outside. (Kynkäänniemi et al.'s eq. 1 has <=, which is equivalent without ties.)
    Ties are exact for features that are multiples of one power of two, such as
    integers.

    Args:
      real: features [n, D] of real examples.
      fake: features [m, D] of samples. All results are nan if a value is not finite or
        a set has at most k rows.
      k: the number of the neighbour that determines a radius, not counting x itself.
    """
    if min(len(real), len(fake)) <= k or not (np.isfinite(real).all() and np.isfinite(fake).all()):
        return dict.fromkeys(NAMES, math.nan)
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    centre = choose_exact_centre(real)
    real, fake = real - centre, fake - centre
    reach, span = kth_neighbour_squared_distances(real, k), kth_neighbour_squared_distances(fake, k)
    counts, recalled, covered = np.zeros(len(fake)), [], []
    for part in iterate_row_slices(len(real), len(fake)):
        distances = squared_distances(real[part], fake)
        inside = distances < reach[part, None]
        counts += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances < span).any(1))
    values = (
        (counts > 0).mean(),
        np.concatenate(recalled).mean(),
        counts.mean() / k,
        np.concatenate(covered).mean(),
    )
    return dict(zip(NAMES, map(float, values), strict=True))


def choose_exact_centre(x: np.ndarray) -> np.ndarray:  # [n, D] -> [D]
    """Return a point near the mean whose subtraction reduces the magnitude of features
    without rounding error if features are multiples of one power of two: each
    coordinate is a multiple of the largest power of two within the range of that
    feature.
    """
    spread = np.ptp(x, axis=0)
    step = np.exp2(np.floor(np.log2(np.where(spread > 0, spread, 1))))
    return np.where(spread > 0, np.round(x.mean(0) / step) * step, x[0])


def manifold_statistics(
    inputs: MetricInputs,
) -> dict[str, float]:  # precision, recall, density, coverage
    """Precision, recall, density and coverage of features, by balls that extend to the
    fifth nearest neighbour: all near 1 is best.

    Kynkäänniemi et al. 2019; Naeem et al. 2020. Equal numbers of samples and examples
    are used, at most 10,000, since all four depend on these numbers.
    """
    return prdc(*take_equal_random_subsets(*inputs.extract_features()))

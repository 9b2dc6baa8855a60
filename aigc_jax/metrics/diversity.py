"""How different samples are from one another: a generator that collapsed draws the same
picture for every noise.
"""

import math

import numpy as np

from aigc_jax.metrics.inputs import take_part
from aigc_jax.metrics.pairwise import squares

MOST = 1000  # examples of each kind: all their pairs are compared


def mean_distance(x: np.ndarray) -> float:  # [n, ...] -> []
    """The mean Euclidean distance |x_i - x_j| over all pairs i < j, in the
    units of x.
    """
    x = np.asarray(x.reshape(len(x), -1), np.float64)
    return float(np.sqrt(squares(x, x)).sum() / (len(x) * (len(x) - 1)))


def diversity(given) -> dict[str, float]:
    """The mean distance between samples over that between real examples: 1 where they
    differ as much, 0 where all are alike.

    It says nothing of whether they look real. Of 1,000 of each at most.
    """
    samples, real = (take_part(x, MOST) for x in (given.draw("prior"), given.real["x"]))
    if len(samples) < 2 or len(real) < 2:
        return dict(diversity=math.nan)
    return dict(diversity=mean_distance(samples) / mean_distance(real))

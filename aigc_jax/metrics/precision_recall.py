"""How far two sets of features cover one another, by balls around their members."""

import math

import numpy as np

from aigc_jax.metrics.inputs import equally
from aigc_jax.metrics.pairwise import radii, rows, squares

NAMES = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5


def prdc(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS
) -> dict[str, float]:  # [n, D], [m, D] -> 4 x []
    """With the ball B(x) around each x that reaches to its k-th nearest neighbour of
    its own kind,

    precision   the share of the fake in some B(real)       recall   of the real in some
                B(fake) (Kynkäänniemi et al. 2019, eq. 1 and 2)
    density     mean number of balls B(real) around the fake, over k      coverage   the
                share of B(real) that hold a fake one (Naeem et al. 2020, eq. 3 and 4)

    Balls are open, |x - y| < radius, as in Naeem et al.'s program `prdc`: what lies on
    a ball's border is outside. (Kynkäänniemi et al.'s eq. 1 has <=, which is the same
    without ties.) Ties of features that are multiples of one power of two, such as
    whole numbers, are exact.
    """
    if min(len(real), len(fake)) <= k or not (np.isfinite(real).all() and np.isfinite(fake).all()):
        return dict.fromkeys(NAMES, math.nan)
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    centre = exact_centre(real)
    real, fake = real - centre, fake - centre
    reach, span = radii(real, k), radii(fake, k)
    around, recalled, covered = np.zeros(len(fake)), [], []
    for part in rows(len(real), len(fake)):
        apart = squares(real[part], fake)
        inside = apart < reach[part, None]
        around += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((apart < span).any(1))
    values = (
        (around > 0).mean(),
        np.concatenate(recalled).mean(),
        around.mean() / k,
        np.concatenate(covered).mean(),
    )
    return dict(zip(NAMES, map(float, values), strict=True))


def exact_centre(x: np.ndarray) -> np.ndarray:  # [n, D] -> [D]
    """A point near the mean, whose subtraction leaves smaller numbers to multiply, and
    rounds nothing where features are multiples of one power of two: each coordinate is
    a multiple of the greatest power of two within that feature's range.
    """
    spread = np.ptp(x, axis=0)
    step = np.exp2(np.floor(np.log2(np.where(spread > 0, spread, 1))))
    return np.where(spread > 0, np.round(x.mean(0) / step) * step, x[0])


def cover(given) -> dict[str, float]:
    """Precision, recall, density and coverage of features, by balls that reach to the
    fifth nearest neighbour: all near 1 is best.

    Kynkäänniemi et al. 2019; Naeem et al. 2020. As many samples as examples, since all
    four follow their numbers; at most 10,000.
    """
    return prdc(*equally(*given.features()))

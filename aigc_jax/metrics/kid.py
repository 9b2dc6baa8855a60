"""The kernel distance between two sets of features."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MOST, take_part
from aigc_jax.metrics.pairwise import rows


def kid(a: np.ndarray, b: np.ndarray) -> float:  # [n, D], [m, D] -> []
    """The squared maximum mean discrepancy for k(x, y) = (x . y / D + 1)^3, without
    bias: the mean of k over pairs i != j of a, and of b, less twice that over pairs of
    both (Gretton et al. 2012, eq. 3; Binkowski et al. 2018, section 4). Over all pairs
    at once, no subsets. 0 in the mean where both come from one distribution, so that it
    may be negative.
    """
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    kernel = lambda products: (products / a.shape[1] + 1) ** 3
    total = lambda x, y: sum(kernel(x[part] @ y.T).sum() for part in rows(len(x), len(y)))
    within = lambda x: (
        (total(x, x) - kernel(np.einsum("nd,nd->n", x, x)).sum()) / (len(x) * (len(x) - 1))
    )
    return float(within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b)))


def kernel_distance(given) -> dict[str, float]:
    """The squared maximum mean discrepancy of features for the kernel (x . y / D +
    1)^3, without bias: 0 in the mean for one distribution.

    Binkowski et al. 2018, section 4. Of 10,000 of each kind at most.
    """
    return dict(kid=kid(*(take_part(x, MOST) for x in given.features())))

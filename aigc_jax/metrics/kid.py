"""The kernel distance (KID) between two sets of features."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MOST, MetricInputs, take_random_subset
from aigc_jax.metrics.pairwise import iterate_row_slices


def unbiased_squared_mmd(a: np.ndarray, b: np.ndarray) -> float:  # [n, D], [m, D] -> []
    """Return the unbiased squared maximum mean discrepancy for the kernel k(x, y) =
    (x . y / D + 1)^3: the means of k over pairs i != j of a and of b, minus twice the
    mean over pairs of one from a and one from b (Gretton et al. 2012, eq. 3; Binkowski
    et al. 2018, section 4).

    All pairs are used, not subsets. The expectation is 0 for equal distributions, so
    values may be negative.

    Args:
      a, b: features [n, D] and [m, D]. The result is nan if a value is not finite or a
        set has fewer than 2 rows.
    """
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    kernel = lambda products: (products / a.shape[1] + 1) ** 3
    total = lambda x, y: sum(
        kernel(x[part] @ y.T).sum() for part in iterate_row_slices(len(x), len(y))
    )
    within = lambda x: (
        (total(x, x) - kernel(np.einsum("nd,nd->n", x, x)).sum()) / (len(x) * (len(x) - 1))
    )
    return float(within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b)))


def kernel_distance(inputs: MetricInputs) -> dict[str, float]:  # kid
    """The unbiased squared maximum mean discrepancy of features for the kernel (x . y /
    D + 1)^3: its expectation is 0 for equal distributions.

    Binkowski et al. 2018, section 4. At most 10,000 of each kind are used.
    """
    return dict(
        kid=unbiased_squared_mmd(*(take_random_subset(x, MOST) for x in inputs.extract_features()))
    )

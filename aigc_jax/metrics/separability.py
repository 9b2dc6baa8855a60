"""Can a linear classifier tell generated examples from real ones?"""

import math

import numpy as np

from aigc_jax.metrics.given import equally

RIDGE = 0.01  # of the mean variance of the features


def separable(real: np.ndarray, fake: np.ndarray) -> float:  # [n, D], [n, D] -> []
    """The held-out accuracy of least squares for +1 and -1 with a ridge, which is Fisher's linear discriminant: of two halves each judges the
    classifier of the other (Lopez-Paz & Oquab 2017, eq. 2). 0.5: it cannot tell them apart; 1: it always can. A tie counts half."""
    if min(len(real), len(fake)) < 4 or not (np.isfinite(real).all() and np.isfinite(fake).all()):
        return math.nan
    x = np.stack(equally(np.asarray(real, np.float64), np.asarray(fake, np.float64)))  # [2, n, D]
    # One permutation for both kinds: classes may come in turn, and copies of an example must not lie in both halves.
    halves = np.array_split(np.random.RandomState(0).permutation(x.shape[1]), 2)
    return float(np.mean([_accuracy(x[:, one], x[:, other]) for one, other in (halves, halves[::-1])]))


def _accuracy(train, test):  # [2, n, D], [2, m, D] -> []
    centre, size = train.mean((0, 1)), train.std((0, 1))
    scale = lambda x: (x - centre) / np.where(size > 0, size, 1)
    a = scale(train)
    rows = a.reshape(-1, a.shape[-1])
    w = np.linalg.solve(rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1]), a[0].sum(0) - a[1].sum(0))
    score = scale(test) @ w
    score[np.abs(score) < 1e-9] = 0  # two equal sets leave rounding errors
    return np.mean(np.sign(score) * [[1], [-1]] + 1) / 2


def separability(given) -> dict[str, float]:
    """Held-out accuracy of a linear classifier of features that tells samples from examples: 0.5 it cannot, 1 it always can.
    Lopez-Paz & Oquab 2017 with least squares on features. As many samples as examples, at most 10,000."""
    return dict(separability=separable(*given.features()))

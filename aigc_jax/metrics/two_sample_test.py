"""Can a linear classifier tell generated examples from real ones?"""

import math

import numpy as np

from aigc_jax.metrics.inputs import equally

RIDGE = 0.01  # of the mean variance of the features


def scores(real: np.ndarray, fake: np.ndarray) -> np.ndarray:  # [n, D], [m, D] -> [2, k]
    """What least squares for +1 (real) and -1 (fake) with a ridge, which is Fisher's
    linear discriminant, says of k real and of k fake examples that it has not seen: of
    two halves each judges the classifier of the other. nan where something is not
    finite, or too little is there.
    """
    x = np.stack(equally(np.asarray(real, np.float64), np.asarray(fake, np.float64)))  # [2, k, D]
    if x.shape[1] < 4 or not np.isfinite(x).all():
        return np.full(x.shape[:2], math.nan)
    # One permutation for both kinds: classes may come in turn, and copies of an example
    # must not lie in both halves.
    halves = np.array_split(np.random.RandomState(0).permutation(x.shape[1]), 2)
    out = np.empty(x.shape[:2])
    for one, other in (halves, halves[::-1]):
        out[:, other] = _judged(x[:, one], x[:, other])
    return out


def _judged(train, test):  # [2, n, D], [2, m, D] -> [2, m]
    centre, size = train.mean((0, 1)), train.std((0, 1))
    scale = lambda x: (x - centre) / np.where(size > 0, size, 1)
    a = scale(train)
    rows = a.reshape(-1, a.shape[-1])
    w = np.linalg.solve(
        rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1]), a[0].sum(0) - a[1].sum(0)
    )
    score = scale(test) @ w
    score[np.abs(score) < 1e-9] = 0  # two equal sets leave rounding errors
    return score


def told(found: np.ndarray) -> float:  # [2, k] -> []
    """The share of `scores` of the right sign (Lopez-Paz & Oquab 2017, eq. 2). 0.5:
    they cannot be told apart; 1: they always can. A tie counts half.
    """
    return (
        float(np.mean(np.sign(found) * [[1], [-1]] + 1) / 2)
        if np.isfinite(found).all()
        else math.nan
    )


def separable(real: np.ndarray, fake: np.ndarray) -> float:  # [n, D], [m, D] -> []
    """`told` of their scores."""
    return told(scores(real, fake))


def separability(given) -> dict[str, float]:
    """Held-out accuracy of a linear classifier of features that tells samples from
    examples: 0.5 it cannot, 1 it always can.

    Lopez-Paz & Oquab 2017 with least squares on features. As many samples as examples,
    at most 10,000.
    """
    return dict(separability=separable(*given.features()))

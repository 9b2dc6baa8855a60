"""A classifier two-sample test: a linear classifier of real and generated examples."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs, take_equal_random_subsets

RIDGE = 0.01  # of the mean variance of the features


def held_out_discriminant_scores(
    real: np.ndarray, fake: np.ndarray
) -> np.ndarray:  # [n, D], [m, D] -> [2, k], real first, k = min(n, m, MOST)
    """Return held-out scores of k real and k fake examples by Fisher's linear
    discriminant, fitted as ridge regression to +1 (real) and -1 (fake).

    The classifier fitted on each half of the examples scores the other half. Scores are
    nan if a feature is not finite or a kind has fewer than 4 examples.

    Args:
      real: features [n, D] of real examples.
      fake: features [m, D] of samples.

    Returns:
      Scores [2, k], the real examples first, with k = min(n, m, MOST) of each kind.
    """
    x = np.stack(
        take_equal_random_subsets(np.asarray(real, np.float64), np.asarray(fake, np.float64))
    )  # [2, k, D]
    if x.shape[1] < 4 or not np.isfinite(x).all():
        return np.full(x.shape[:2], math.nan)
    # One permutation for both kinds: the order may cycle through the classes, and
    # copies of an example must not be in both halves.
    halves = np.array_split(np.random.RandomState(0).permutation(x.shape[1]), 2)
    out = np.empty(x.shape[:2])
    for one, other in (halves, halves[::-1]):
        out[:, other] = _score_held_out(x[:, one], x[:, other])
    return out


def _score_held_out(train, test):  # [2, n, D], [2, m, D] -> [2, m]
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


def sign_accuracy(scores: np.ndarray) -> float:  # [2, k], real first -> []
    """Return the share of `held_out_discriminant_scores` with the correct sign
    (Lopez-Paz & Oquab 2017, eq. 2): 0.5 for indistinguishable, 1 for separable sets.
    Ties count half.

    Args:
      scores: [2, k], of real examples first. The accuracy is nan if a score is not
        finite.
    """
    return (
        float(np.mean(np.sign(scores) * [[1], [-1]] + 1) / 2)
        if np.isfinite(scores).all()
        else math.nan
    )


def two_sample_accuracy(real: np.ndarray, fake: np.ndarray) -> float:  # [n, D], [m, D] -> []
    """Return the `sign_accuracy` of the `held_out_discriminant_scores` of two sets."""
    return sign_accuracy(held_out_discriminant_scores(real, fake))


def separability(inputs: MetricInputs) -> dict[str, float]:  # separability, an accuracy
    """Held-out accuracy of a linear classifier of features that separates samples from
    examples: 0.5 for indistinguishable, 1 for separable sets.

    Lopez-Paz & Oquab 2017 with least squares on features. Equal numbers of samples and
    examples are used, at most 10,000.
    """
    return dict(separability=two_sample_accuracy(*inputs.extract_features()))

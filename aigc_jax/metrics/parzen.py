"""The likelihood of real examples under Parzen windows on samples."""

import math
from collections.abc import Sequence

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs, take_random_subset
from aigc_jax.metrics.pairwise import iterate_row_slices, squared_distances

SIGMAS = np.geomspace(0.01, 1, 21)  # candidates, for pixels in [0, 1]
NUM_VALID = 1000  # number of valid examples that select sigma


def parzen_log_density(
    x: np.ndarray, windows: np.ndarray, sigmas: Sequence[float] | np.ndarray
) -> np.ndarray:  # [m, D], [n, D], [S] -> nats [S, m]
    """Return the log of the mean over the windows w of N(x; w, sigma^2) in nats, for
    every sigma.

    Args:
      x: points [m, D] at which the density is evaluated.
      windows: centres w [n, D] of the windows.
      sigmas: standard deviations [S] of the windows, in the units of x.
    """
    x, windows = np.asarray(x, np.float64), np.asarray(windows, np.float64)
    n, dimensions = windows.shape
    out = []
    for part in iterate_row_slices(len(x), n):
        squares = squared_distances(x[part], windows)
        least = squares.min(1, keepdims=True)
        squares -= least
        out.append(
            [
                np.log(np.exp(squares / (-2 * s**2)).sum(1)) - least[:, 0] / (2 * s**2)
                for s in sigmas
            ]
        )
    constant = [dimensions / 2 * math.log(2 * math.pi * s**2) + math.log(n) for s in sigmas]
    return np.concatenate(out, axis=1) - np.array(constant)[:, None]


def evaluate_parzen_windows(
    samples: np.ndarray, valid: np.ndarray, test: np.ndarray
) -> dict[str, float]:  # [n, D], [m, D], [M, D] -> parzen (nats), its error, parzen_sigma
    """Return the mean log density of the examples `test` and its standard error, with
    the sigma that maximizes the likelihood of the examples `valid`.

    Args:
      samples: centres [n, D] of the windows.
      valid: examples [m, D] that select sigma, out of SIGMAS.
      test: examples [M, D] whose density is averaged.
    """
    if not np.isfinite(samples).all():
        return dict.fromkeys(("parzen", "parzen_error", "parzen_sigma"), math.nan)
    sigma = SIGMAS[parzen_log_density(valid, samples, SIGMAS).mean(1).argmax()]
    values = parzen_log_density(test, samples, [sigma])[0]
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return dict(parzen=float(values.mean()), parzen_error=float(error), parzen_sigma=float(sigma))


def parzen(
    inputs: MetricInputs,
) -> dict[str, float]:  # parzen, parzen_error in nats, parzen_sigma
    """Mean log density in nats of the split under Gaussian windows on the samples, for
    pixels in [0, 1] and sigma selected on valid examples.

    Breuleux et al. 2011; Goodfellow et al. 2014, section 5; with the standard error of
    the mean. The metric is unreliable: k-means centres score better than real samples
    (Theis et al. 2016). Sigma is the best of 21 from 0.01 to 1, on at most 1,000 random
    examples of the valid split.
    """
    pixels = lambda x: (
        (x.reshape(len(x), -1) + 1) / 2 if inputs.spec.kind == "image" else x.reshape(len(x), -1)
    )
    valid = take_random_subset(inputs.examples("valid")["x"], NUM_VALID)
    return evaluate_parzen_windows(
        *map(pixels, (inputs.draw("prior"), valid, inputs.real_examples["x"]))
    )

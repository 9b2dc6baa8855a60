"""The likelihood of real examples under a smoothed set of samples."""

import math

import numpy as np

from aigc_jax.metrics.inputs import take_part
from aigc_jax.metrics.pairwise import rows, squares

SIGMAS = np.geomspace(0.01, 1, 21)  # of pixels in [0, 1]
CHOOSING = 1000  # valid examples that choose among them


def log_density(
    x: np.ndarray, windows: np.ndarray, sigmas
) -> np.ndarray:  # [m, D], [n, D], [S] -> [S, m]
    """log of the mean over the windows w of N(x; w, sigma^2) in nats, by sigma."""
    x, windows = np.asarray(x, np.float64), np.asarray(windows, np.float64)
    n, dimensions = windows.shape
    out = []
    for part in rows(len(x), n):
        apart = squares(x[part], windows)
        least = apart.min(1, keepdims=True)
        apart -= least
        out.append(
            [np.log(np.exp(apart / (-2 * s**2)).sum(1)) - least[:, 0] / (2 * s**2) for s in sigmas]
        )
    constant = [dimensions / 2 * math.log(2 * math.pi * s**2) + math.log(n) for s in sigmas]
    return np.concatenate(out, axis=1) - np.array(constant)[:, None]


def parzen_window(
    samples: np.ndarray, valid: np.ndarray, judged: np.ndarray
) -> dict[str, float]:  # [n, D], [m, D], [M, D] -> 3 x []
    """The mean log density of the judged examples with its standard error, by the sigma
    that is likeliest for the valid ones.
    """
    if not np.isfinite(samples).all():
        return dict.fromkeys(("parzen", "parzen_error", "parzen_sigma"), math.nan)
    sigma = SIGMAS[log_density(valid, samples, SIGMAS).mean(1).argmax()]
    values = log_density(judged, samples, [sigma])[0]
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return dict(parzen=float(values.mean()), parzen_error=float(error), parzen_sigma=float(sigma))


def parzen(given) -> dict[str, float]:
    """Mean log density in nats of the split under Gaussian windows on the samples,
    pixels in [0, 1], sigma chosen on valid examples.

    Breuleux et al. 2011; Goodfellow et al. 2014, section 5; with the mean's standard
    error. A poor guide: samples that are k-means centres beat real ones (Theis et al.
    2016). Sigma is the best of 21 from 0.01 to 1, by at most 1,000 random examples of
    the valid split.
    """
    pixels = lambda x: (
        (x.reshape(len(x), -1) + 1) / 2 if given.spec.kind == "image" else x.reshape(len(x), -1)
    )
    valid = take_part(given.of("valid")["x"], CHOOSING)
    return parzen_window(*map(pixels, (given.draw("prior"), valid, given.real["x"])))

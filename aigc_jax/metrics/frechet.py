"""Fréchet distances between Gaussians fitted to two sets of features."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs

LARGEST = 1024  # values of an image; the eigendecomposition's cost grows with its cube


def squared_frechet_distance(a: np.ndarray, b: np.ndarray) -> float:  # [n, D], [m, D] -> []
    """Return |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2), m means, S
    covariances (Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6).

    Computed in float64 from symmetric eigenvalues, which is accurate for fewer samples
    than dimensions too.

    Args:
      a, b: features [n, D] and [m, D]. The distance is nan if a value is not finite or
        a set has fewer than 2 rows.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * _roots(values)) @ vectors.T
    cross = _roots(np.linalg.eigvalsh(root @ cov_b @ root)).sum()
    return float(
        np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    )


def _roots(values):
    """Return the square roots of eigenvalues; eigenvalues within rounding error of 0,
    of either sign, count as 0.
    """
    smallest = values.max(initial=0) * len(values) * np.finfo(np.float64).eps
    return np.sqrt(np.where(values > smallest, values, 0))


def downsample_by_area(
    images: np.ndarray, max_values: int = LARGEST
) -> np.ndarray:  # [n, H, W, C] -> [n, D], D <= max_values
    """Downsample images by area averaging to at most `max_values` values each, and
    flatten them; smaller images are only flattened.

    Args:
      images: [n, H, W, C].
      max_values: the most values D of an image in the result.
    """
    n, h, w, c = images.shape
    shrink = math.sqrt(max_values / (h * w * c))
    if shrink < 1:
        rows, columns = _boxes(h, max(1, int(h * shrink))), _boxes(w, max(1, int(w * shrink)))
        images = np.einsum(
            "nhwc,ah,bw->nabc", np.asarray(images, np.float64), rows, columns, optimize=True
        )
    return images.reshape(n, -1)


def _boxes(size: int, parts: int) -> np.ndarray:  # -> [parts, size], rows sum to 1
    """Return the share of each of `parts` equal intervals that each pixel covers."""
    edges = np.linspace(0, size, parts + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(
        edges[:-1, None], np.arange(size)
    )
    return np.clip(overlap, 0, None) * parts / size


def frechet_pixels(inputs: MetricInputs) -> dict[str, float]:  # frechet_pixels, squared
    """The Fréchet distance of pixels in [-1, 1], area-averaged to at most 1,024 values.
    It is not the FID, which uses Inception features.

    Values are comparable only for equal numbers of samples: the distance decreases with
    the number of samples.
    """
    samples, real = inputs.draw("prior"), inputs.real_examples["x"]
    if inputs.spec.kind == "image":
        samples, real = downsample_by_area(samples), downsample_by_area(real)
    return dict(frechet_pixels=squared_frechet_distance(samples, real))


def frechet_features(inputs: MetricInputs) -> dict[str, float]:  # frechet, squared
    """The Fréchet distance of an extractor's features: the FID if the extractor is
    Inception (Heusel et al. 2017, eq. 6).

    Values are comparable only for the same extractor and equal numbers of samples: the
    distance decreases with the number of samples.
    """
    return dict(frechet=squared_frechet_distance(*inputs.extract_features()))

"""Mixtures of Gaussians in the plane, as in PacGAN (Lin et al. 2018, section 4.1)."""

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data.dataset import Dataset, make_points

COUNTS = dict(train=100_000, valid=10_000, test=10_000)


def mixture(centres: np.ndarray, sigma: float, about: dict) -> Dataset:
    """Sample a mixture of isotropic Gaussians of equal weight, the same points on every
    machine.

    Args:
      centres: the means [M, 2].
      sigma: the standard deviation along each axis.
      about: `Dataset.about`.
    """
    random = np.random.RandomState(0)
    splits = {}
    for name, count in COUNTS.items():
        mode = random.randint(len(centres), size=count)
        splits[name] = dict(x=(centres[mode] + sigma * random.randn(count, 2)).astype(np.float32))
    return make_points(splits, about, centres, sigma)


def ring(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Sample 8 Gaussians on the unit circle, with standard deviation 0.01."""
    angle = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return mixture(centres, 0.01, dict(source="generated", licence="none needed"))


def grid(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Sample 25 Gaussians on {-4, -2, 0, 2, 4}^2, with standard deviation 0.05."""
    axis = np.arange(-4.0, 5.0, 2.0)
    centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return mixture(centres, 0.05, dict(source="generated", licence="none needed"))

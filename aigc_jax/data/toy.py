"""Mixtures of Gaussians in the plane, as in PacGAN (Lin et al. 2018, section 4.1)."""

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data.dataset import Dataset, make_point_dataset

COUNTS = dict(train=100_000, valid=10_000, test=10_000)


def sample_mixture_dataset(
    centres: np.ndarray, sigma: float, about: dict
) -> Dataset:  # [M, 2] -> points [n, 2]
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
    return make_point_dataset(splits, about, centres, sigma)


def load_ring(_config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Sample 8 Gaussians on the unit circle, with standard deviation 0.01."""
    angle = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return sample_mixture_dataset(centres, 0.01, dict(source="generated", licence="none needed"))


def load_grid(_config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Sample 25 Gaussians on {-4, -2, 0, 2, 4}^2, with standard deviation 0.05."""
    axis = np.arange(-4.0, 5.0, 2.0)
    centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return sample_mixture_dataset(centres, 0.05, dict(source="generated", licence="none needed"))

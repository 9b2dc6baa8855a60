"""Data sets as arrays in memory: one function each, one line each in the table."""

from ml_collections import ConfigDict

from aigc_jax.data import (
    cifar,
    corpora,
    folder,
    images,
    npz,
    pairs,
    records,
    stacked,
    token_files,
    toy,
)
from aigc_jax.data.dataset import Dataset
from aigc_jax.utils.errors import choose

__all__ = ["DATASETS", "Dataset", "load"]

# config.data.name -> load(config.data, data_dir, download) -> Dataset
DATASETS = {
    "digits": images.digits,
    "mnist": images.mnist,
    "fashion_mnist": images.mnist,
    "binarized_mnist": images.binarized_mnist,
    "stacked_mnist": stacked.stacked_mnist,
    "cifar10": cifar.cifar10,
    "npz": npz.npz,
    "folder": folder.folder,
    "tfds": records.prepared,
    "ring": toy.ring,
    "grid": toy.grid,
    "shakespeare": corpora.shakespeare,
    "tang_poems": corpora.tang_poems,
    "journey_to_the_west": corpora.journey_to_the_west,
    "nottingham": corpora.nottingham,
    "pydoc": corpora.pydoc,
    "stdlib": corpora.stdlib,
    "text": corpora.text,
    "tokens": token_files.tokens,
    "pairs": pairs.tsv,
    "multi30k": pairs.multi30k,
    "docstrings": pairs.docstrings,
}


def load(config: ConfigDict, data_dir: str = "", download: bool = False) -> Dataset:
    """The data set that `config` (a config's `data` section) names."""
    return choose(DATASETS, config.name, "config.data.name")(config, data_dir, download)

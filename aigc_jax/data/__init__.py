"""Data sets as arrays: each has a function that loads it and a row in `DATASETS`."""

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
    "tfds": records.prepared_records,
    "ring": toy.ring,
    "grid": toy.grid,
    "shakespeare": corpora.shakespeare,
    "tang_poems": corpora.tang_poems,
    "journey_to_the_west": corpora.journey_to_the_west,
    "nottingham": corpora.nottingham,
    "pydoc": corpora.pydoc,
    "stdlib": corpora.stdlib,
    "text": corpora.text_dataset,
    "tokens": token_files.tokens,
    "pairs": pairs.tsv,
    "multi30k": pairs.multi30k,
    "docstrings": pairs.docstrings,
}


def load(config: ConfigDict, data_dir: str = "", download: bool = False) -> Dataset:
    """Load the data set that config.name selects from `DATASETS`.

    Args:
      config: the `data` section of a config.
      data_dir: a directory to search before the default ones; "" for none.
      download: whether to download missing files, where the data set supports it.
    """
    return choose(DATASETS, config.name, "config.data.name")(config, data_dir, download)

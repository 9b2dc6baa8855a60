"""Data sets as arrays in memory: one function each, one line each in the table."""

from aigc_jax.data import cifar, folder, images, npz, pairs, records, stacked, text, token_files, toy
from aigc_jax.data.dataset import Dataset, fingerprint
from aigc_jax.errors import choose

__all__ = ["DATASETS", "Dataset", "fingerprint", "load"]

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
    "shakespeare": text.shakespeare,
    "tang_poems": text.tang_poems,
    "journey_to_the_west": text.journey_to_the_west,
    "nottingham": text.nottingham,
    "pydoc": text.pydoc,
    "stdlib": text.stdlib,
    "text": text.text,
    "tokens": token_files.tokens,
    "pairs": pairs.tsv,
    "multi30k": pairs.multi30k,
    "docstrings": pairs.docstrings,
}


def load(config, data_dir: str = "", download: bool = False) -> Dataset:
    """The data set that `config` (a config's `data` section) names."""
    return choose(DATASETS, config.name, "config.data.name")(config, data_dir, download)

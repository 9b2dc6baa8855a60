"""The table of data sets.

All loaders have the arguments of `load`, and raise a UserError where files are missing
or damaged, or where a key of the config does not suit them.
"""

from ml_collections import ConfigDict

from aigc_jax.data import (
    array_records,
    cifar,
    corpora,
    folder,
    hf,
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
from aigc_jax.utils.memory import convert_memory_errors

# config.data.name -> load(config.data, data_dir, download) -> Dataset
DATASETS = {
    "digits": images.load_digits,
    "mnist": images.load_mnist,
    "fashion_mnist": images.load_mnist,
    "binarized_mnist": images.load_binarized_mnist,
    "stacked_mnist": stacked.load_stacked_mnist,
    "cifar10": cifar.load_cifar10,
    "npz": npz.load_npz,
    "folder": folder.load_image_folder,
    "tfds": records.load_tfds_images,
    "hf": hf.load_saved_dataset,
    "array_record": array_records.load_array_records,
    "ring": toy.load_ring,
    "grid": toy.load_grid,
    "shakespeare": corpora.load_shakespeare,
    "tang_poems": corpora.load_tang_poems,
    "journey_to_the_west": corpora.load_journey_to_the_west,
    "nottingham": corpora.load_nottingham,
    "pydoc": corpora.load_pydoc,
    "stdlib": corpora.load_stdlib,
    "text": corpora.load_text_files,
    "tokens": token_files.load_token_files,
    "pairs": pairs.load_tsv_pairs,
    "multi30k": pairs.load_multi30k,
    "docstrings": pairs.load_docstrings,
}

LARGE = (
    "data that exceed the memory are read from files by config.data.name = 'tokens', 'tfds', 'hf', "
    "'array_record' and 'folder' with config.run.data_placement = 'host'"
)


def load(config: ConfigDict, data_dir: str = "", download: bool = False) -> Dataset:
    """Load the data set that config.name selects from `DATASETS`.

    Args:
      config: the `data` section of a config.
      data_dir: a directory to search before $AIGC_DATA_DIR and ~/tensorflow_datasets;
        "" for none.
      download: whether to download missing files, where the data set supports it.

    Raises:
      UserError: config.name is unknown, or the data set cannot be loaded.
    """
    loader = choose(DATASETS, config.name, "config.data.name")
    with convert_memory_errors(f"config.data.name = {config.name!r}", LARGE):
        return loader(config, data_dir, download)

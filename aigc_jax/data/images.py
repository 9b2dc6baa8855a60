"""Data sets of images: digits, MNIST, Fashion-MNIST, binarized MNIST."""

import gzip
import importlib.util
import math
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset, make_image_dataset, split_80_10_10
from aigc_jax.data.downloads import SOURCES, download_missing_files
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import open_regular_file


def load_digits(_config: ConfigDict, _data_dir: str, _download: bool) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits of 8x8 pixels, 17 grey levels. The
    package is located but not imported, which would take longer than a training step.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError(
            "data set 'digits' needs the package scikit-learn: pip install scikit-learn"
        )
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")  # [n, 64 pixels and the class]
    arrays: dict[str, np.ndarray] = dict(
        x=table[:, :-1].reshape(-1, 8, 8, 1).astype(np.uint8), label=table[:, -1].astype(np.int32)
    )
    about = dict(
        source="scikit-learn's load_digits (UCI optical recognition of handwritten digits)",
        licence="CC BY 4.0",
    )
    return make_image_dataset(split_80_10_10(arrays), 16, about, num_classes=10)


IDX = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
LICENCES = {
    "mnist": "none stated (LeCun, Cortes, Burges)",
    "fashion_mnist": "MIT (Zalando)",
    "binarized_mnist": "MIT (Larochelle)",
    "cifar10": "none stated (Krizhevsky)",
}
MOST_RATIO = 1032  # of uncompressed to compressed bytes (RFC 1951: 258 bytes in two bits)
MOST_AXES = 4
VALID = 5_000  # held-out images: the last of the 60,000 (CIFAR-10: 50,000) training images


def load_mnist(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load MNIST or Fashion-MNIST, 55,000 + 5,000 + 10,000 images of 28x28, from raw
    IDX files or prepared by tensorflow-datasets.
    """
    paths, folder, about = find_or_download(config.name, IDX, data_dir, download)
    if folder:
        train, test = read_tfds_split(folder, "train"), read_tfds_split(folder, "test")
    else:
        raw = [read_gzipped_idx(paths[file]) for file in IDX]
        train, test = (
            dict(x=i[..., None], label=l.astype(np.int32)) for i, l in (raw[:2], raw[2:])
        )
    return make_dataset_with_held_out_valid(train, test, about)


def make_dataset_with_held_out_valid(
    train: dict[str, np.ndarray], test: dict[str, np.ndarray], about: dict
) -> Dataset:  # ten classes; valid: the last 5,000 of train
    """Return a data set of images of ten classes. The last VALID training images are
    the valid split.

    Args:
      train: {x: uint8 [n, H, W, C], label: int32 [n]}.
      test: of the same kind.
      about: `Dataset.about`.
    """
    cut = len(train["x"]) - VALID
    require(
        cut > 0,
        f"{about['source']} has {len(train['x']):,} training images, too few to hold out {VALID:,}",
    )
    splits = dict(
        train={k: a[:cut] for k, a in train.items()},
        valid={k: a[cut:] for k, a in train.items()},
        test=test,
    )
    return make_image_dataset(splits, 255, about, num_classes=10)


def load_binarized_mnist(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load MNIST with binary pixels, a fixed sample of its grey levels: 50,000 +
    10,000 + 10,000 images of 28x28 (Larochelle & Murray 2011), from the raw .amat
    files, plain or gzipped, or prepared by tensorflow-datasets.
    """
    names = {split: f"binarized_mnist_{split}.amat" for split in ("train", "valid", "test")}
    paths, folder, about = find_or_download(config.name, names.values(), data_dir, download)
    if folder:
        prepared = dict(train="train", valid="validation", test="test")
        splits = {split: read_tfds_split(folder, name) for split, name in prepared.items()}
    else:
        splits = {split: dict(x=read_amat(paths[name])) for split, name in names.items()}
    return make_image_dataset(splits, 1, about)


def find_or_download(
    name: str, file_names: Iterable[str], data_dir: str, download: bool
) -> tuple[dict[str, Path], Path | None, dict]:  # raw files, tfds version, `Dataset.about`
    """Locate the raw files of a data set of `downloads.SOURCES`, or a version prepared
    by tensorflow-datasets; download the files if requested.

    Args:
      name: of the data set.
      file_names: of the raw files.
      data_dir: a directory to search before the default ones; "" for none.
      download: whether to download a missing data set.

    Returns:
      ({file: path}, None, about) of raw files, or ({}, directory, about) of a prepared
      version, where about is `Dataset.about`.

    Raises:
      UserError: the data set is not found, or damaged.
    """
    checksums = {file: SOURCES[name].checksums[file] for file in file_names}
    about: dict[str, Any] = dict(licence=LICENCES[name])
    folder = files.find_newest_tfds_version(name, data_dir)
    if download and folder is None:
        download_missing_files(name, checksums, data_dir)
    paths = files.find_verified_files(name, checksums, data_dir)
    if paths is None and folder is not None:
        return {}, folder, about | dict(source=f"{folder} (prepared by tensorflow-datasets)")
    if paths is None:
        raise files.make_missing_error(name, checksums, data_dir)
    parent = next(iter(paths.values())).parent
    about |= dict(source=f"{parent} (checksums as published)", files=checksums)
    return paths, None, about


def read_amat(path: Path) -> np.ndarray:  # -> uint8 [n, 28, 28, 1] of 0 and 1
    """Return the images in a file with 784 numbers 0 or 1 per line, separated by
    spaces.
    """
    raw = np.frombuffer(files.read_bytes(path), np.uint8)
    if (
        raw.size == 0
        or raw.size % (2 * 784)
        or raw[::2].min() < ord("0")
        or raw[::2].max() > ord("1")
    ):
        raise UserError(f"{path} has no lines of 784 zeros and ones")
    return raw[::2].reshape(-1, 28, 28, 1) - np.uint8(ord("0"))


def read_gzipped_idx(path: Path) -> np.ndarray:  # -> uint8, 1 to 4 axes
    """Return the uint8 array in a gzipped IDX file, which has two zero bytes, the type
    8, the number of axes, their sizes (big-endian) and the data.
    """
    no_idx = UserError(f"{path} is not a complete IDX file of bytes")
    with open_regular_file(path) as packed:
        most = MOST_RATIO * os.fstat(packed.fileno()).st_size
        try:
            with gzip.open(packed) as f:
                head = f.read(4)
                rank = head[3] if head[:3] == b"\0\0\x08" and len(head) == 4 else 0
                sizes = f.read(4 * rank)
                require(0 < rank <= MOST_AXES and len(sizes) == 4 * rank, no_idx.args[0])
                shape = np.frombuffer(sizes, ">u4").tolist()
                count = math.prod(shape)
                require(
                    count <= most,
                    f"{path}: its header declares {count:,} bytes, more than its "
                    f"{most // MOST_RATIO:,} bytes can unpack to",
                )
                raw = f.read(count + 1)  # one more byte, to detect trailing data
        except (OSError, EOFError, zlib.error) as e:
            raise UserError(f"{path} cannot be unpacked: {first_line(e)}") from None
    if len(raw) != count:
        raise no_idx
    return np.frombuffer(raw, np.uint8).reshape(shape)


def read_tfds_split(
    version_dir: Path, split: str
) -> dict[str, np.ndarray]:  # -> {"x": uint8 [n, H, W, C], "label": int32 [n]}
    """Return one split that tensorflow-datasets prepared, read without TensorFlow.

    Args:
      version_dir: of a version, DIRECTORY/NAME/VERSION.
      split: its name in tensorflow-datasets.

    Returns:
      {x: uint8 [n, H, W, C]}, and label int32 [n] if the images have labels.
    """
    import tensorflow_datasets as tfds

    try:
        rows = tfds.data_source(
            version_dir.parent.name, split=split, data_dir=version_dir.parent.parent
        )
        rows = [rows[i] for i in range(len(rows))]
        labels = (
            dict(label=np.array([row["label"] for row in rows], np.int32))
            if "label" in rows[0]
            else {}
        )
        return dict(x=np.stack([row["image"] for row in rows])) | labels
    except NotImplementedError as e:  # other file formats than array_record need TensorFlow
        raise UserError(
            f"{version_dir} cannot be read without TensorFlow ({first_line(e)}); "
            "prepare it with file_format='array_record'"
        ) from None
    except Exception as e:  # a damaged directory raises exceptions of many types
        raise UserError(
            f"{version_dir} has records of {split} that cannot be read: {first_line(e)}"
        ) from None

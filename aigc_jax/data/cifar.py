"""CIFAR-10 (Krizhevsky 2009) in the author's formats: binary batches, or pickles, which
are parsed without executing code.
"""

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset
from aigc_jax.data.downloads import SOURCES
from aigc_jax.data.images import (
    LICENCES,
    find_or_download,
    make_dataset_with_held_out_valid,
    read_tfds_split,
)
from aigc_jax.utils import restricted_pickle
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import is_regular_file, open_regular_file

SIDE, COLOURS, CLASSES = 32, 3, 10
PIXELS = SIDE * SIDE * COLOURS
RECORDS = 10_000  # in a batch
MOST_BYTES = 2**26  # read of a batch, which has about half that size
TRAIN, TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
# form -> (archive, its directory, pattern of file names)
FORMS = {
    "binary": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "{}.bin"),
    "python": ("cifar-10-python.tar.gz", "cifar-10-batches-py", "{}"),
}


def load_cifar10(_config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """Load 45,000 + 5,000 + 10,000 colour images of 32x32 in ten classes, from the
    binary or the Python archive, packed or unpacked, or prepared by
    tensorflow-datasets. The valid split is the last 5,000 training images.
    """
    located = find_archive_or_directory(data_dir)
    if located is None:
        archive = FORMS["binary"][0]  # the archive to download
        paths, folder, about = find_or_download("cifar10", [archive], data_dir, download)
        if folder:
            return make_dataset_with_held_out_valid(
                read_tfds_split(folder, "train"), read_tfds_split(folder, "test"), about
            )
        located = "binary", paths[archive]
    form, path = located
    parts = {
        name: parse_batch(form, source, raw) for name, source, raw in read_batch_files(form, path)
    }
    for name in (*TRAIN, TEST):
        require(name in parts, f"cifar10: {FORMS[form][2].format(name)} is missing in {path}")
    train = {key: np.concatenate([parts[name][key] for name in TRAIN]) for key in parts[TEST]}
    sums = {path.name: SOURCES["cifar10"].checksums[path.name]} if is_regular_file(path) else {}
    return make_dataset_with_held_out_valid(
        train, parts[TEST], dict(licence=LICENCES["cifar10"], source=f"{path}", files=sums)
    )


def find_archive_or_directory(
    data_dir: str,
) -> tuple[str, Path] | None:  # "binary" or "python", its path
    """Return ("binary" or "python", path of the unpacked directory or of the verified
    archive), from cifar10/ in a search directory or from the search directory itself;
    None where none exists.
    """
    roots = files.list_search_directories(data_dir)
    places = ((root, form) for root in roots for form in FORMS)
    for where, form in ((w, form) for root, form in places for w in (root / "cifar10", root)):
        archive, folder, _ = FORMS[form]
        if (where / folder).is_dir():
            return form, where / folder
        if is_regular_file(path := where / archive):
            hint, sha256 = files.download_hint("cifar10"), file_sha256(path)
            expected = SOURCES["cifar10"].checksums[archive]
            files.verify_sha256("cifar10", path, sha256, expected, hint)
            return form, path
    return None


def read_batch_files(
    form: str, path: Path
) -> Iterator[tuple[str, str, bytes]]:  # name, name in error messages, contents
    """Yield (batch, its name in error messages, its bytes) of all existing batches. An
    archive is read in one pass and not unpacked to disk.
    """
    _, folder, pattern = FORMS[form]
    names = {pattern.format(name): name for name in (*TRAIN, TEST)}
    if path.is_dir():
        for file in (file for file in names if os.path.lexists(path / file)):
            with open_regular_file(path / file) as f:
                yield names[file], f"{path / file}", f.read(MOST_BYTES)
        return
    members = {f"{folder}/{file}": name for file, name in names.items()}
    try:
        with open_regular_file(path) as packed, tarfile.open(fileobj=packed) as tar:
            for info in (info for info in tar if info.isreg() and info.name in members):
                content = tar.extractfile(info)
                assert content is not None  # true of every regular member
                yield members[info.name], f"{path}:{info.name}", content.read(MOST_BYTES)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as e:
        raise UserError(f"{path} cannot be unpacked: {first_line(e)}") from None


def parse_batch(
    form: str, error_name: str, raw: bytes
) -> dict[str, np.ndarray]:  # -> {"x": uint8 [n, 32, 32, 3], "label": int32 [n]}
    """Return {"x": uint8 [n, 32, 32, 3], "label": int32 [n]} of one batch. In the file,
    an image is its red, green and blue planes, in that order.

    Args:
      form: "binary" or "python".
      error_name: the batch in error messages.
      raw: the bytes of the batch.
    """
    x, labels = READERS[form](error_name, raw)
    invalid = [
        i for i, label in enumerate(labels) if not (type(label) is int and 0 <= label < CLASSES)
    ]
    require(
        not invalid,
        f"{error_name}: the label of record {min(invalid, default=0)} is none of 0 to "
        f"{CLASSES - 1}",
    )
    x = np.ascontiguousarray(x.reshape(-1, COLOURS, SIDE, SIDE).transpose(0, 2, 3, 1))
    return dict(x=x, label=np.array(labels, np.int32))


def parse_binary_batch(
    error_name: str, raw: bytes
) -> tuple[np.ndarray, list]:  # -> uint8 [n, 3072], n labels
    """Return the images [n, 3072] and labels of a binary batch, whose records are a
    byte of label and the bytes of an image.
    """
    require(
        len(raw) == RECORDS * (1 + PIXELS),
        f"{error_name} has {len(raw):,} bytes; a batch of CIFAR-10 has {RECORDS * (1 + PIXELS):,}",
    )
    rows = np.frombuffer(raw, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0].tolist()


def parse_python_batch(
    error_name: str, raw: bytes
) -> tuple[np.ndarray, list]:  # -> uint8 [n, 3072], n labels
    """Return the images [n, 3072] and labels of a pickle of Python 2, a dictionary of
    an array and a list. Only the array's shape, memory order and bytes are read from
    the pickle, so that it constructs no object.
    """
    content = restricted_pickle.read_pickle(io.BytesIO(raw), ALLOWED, path=error_name)
    require(
        isinstance(content, dict) and {b"data", b"labels"} <= content.keys(),
        f"{error_name} is not a batch of CIFAR-10: it has no data and labels",
    )
    labels = content[b"labels"]
    require(
        isinstance(labels, list) and len(labels) == RECORDS,
        f"{error_name}: its labels are not a list of {RECORDS}",
    )
    match getattr(content[b"data"], "state", None):
        case (_, (rows, columns), "u1", fortran, bytes(data)) if (rows, columns, len(data)) == (
            RECORDS,
            PIXELS,
            RECORDS * PIXELS,
        ):
            return np.frombuffer(data, np.uint8).reshape(
                (RECORDS, PIXELS), order="F" if fortran else "C"
            ), labels
    raise UserError(f"{error_name}: its data are not uint8 [{RECORDS}, {PIXELS}]")


READERS = {"binary": parse_binary_batch, "python": parse_python_batch}


class Array:
    """A placeholder for an array; its state is (version, shape, type, order, bytes)."""

    def __setstate__(self, state):
        self.state = state


class Kind(str):
    """The name of a dtype, whose state (byte order) has no meaning for single bytes."""

    def __setstate__(self, state):
        pass


# Replacements of the NumPy functions that these pickles name, which are never called.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(),
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): lambda kind, *_: Kind(kind, "latin1"),
}

"""CIFAR-10 (Krizhevsky 2009), as its author distributes it: in binary batches, or in
pickles, which are read as data.
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
from aigc_jax.data.images import LICENCES, divided, from_prepared, registered
from aigc_jax.utils import restricted_pickle
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import is_regular, open_regular

SIDE, COLOURS, CLASSES = 32, 3, 10
PIXELS = SIDE * SIDE * COLOURS
RECORDS = 10_000  # in a batch
MOST_BYTES = 2**26  # of a batch, which has half as many
TRAIN, TEST = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
# form -> (archive, the directory in it, how files are called)
FORMS = {
    "binary": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "{}.bin"),
    "python": ("cifar-10-python.tar.gz", "cifar-10-batches-py", "{}"),
}
# SHA-256 as registered by tensorflow-datasets 4.9 (url_checksums/cifar10.txt) and by
# Keras 3 (datasets/cifar10.py).
CHECKSUMS = {
    "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
}


def cifar10(config: ConfigDict, data_dir: str, download: bool) -> Dataset:
    """45,000 + 5,000 + 10,000 colour pictures of 32x32 in ten classes, from the binary
    or the Python archive, packed or unpacked, or prepared by tensorflow-datasets; valid
    are the last of the training pictures.
    """
    found = place(data_dir)
    if found is None:
        archive = FORMS["binary"][0]  # the one that is downloaded
        paths, folder, about = registered(
            "cifar10", {archive: CHECKSUMS[archive]}, data_dir, download
        )
        if folder:
            return divided(from_prepared(folder, "train"), from_prepared(folder, "test"), about)
        found = "binary", paths[archive]
    form, path = found
    parts = {name: batch(form, called, raw) for name, called, raw in pieces(form, path)}
    for name in (*TRAIN, TEST):
        require(name in parts, f"cifar10: {FORMS[form][2].format(name)} is missing in {path}")
    train = {key: np.concatenate([parts[name][key] for name in TRAIN]) for key in parts[TEST]}
    sums = {path.name: CHECKSUMS[path.name]} if is_regular(path) else {}
    return divided(
        train, parts[TEST], dict(licence=LICENCES["cifar10"], source=f"{path}", files=sums)
    )


def place(data_dir: str) -> tuple[str, Path] | None:
    """("binary" or "python", its directory or verified archive) in cifar10/ or at the
    top of the first root that has one.
    """
    for root in files.roots(data_dir):
        for form, (archive, folder, _) in FORMS.items():
            for where in (root / "cifar10", root):
                if (where / folder).is_dir():
                    return form, where / folder
                if is_regular(path := where / archive):
                    files.verify(
                        "cifar10",
                        path,
                        file_sha256(path),
                        CHECKSUMS[archive],
                        files.advice("cifar10"),
                    )
                    return form, path
    return None


def pieces(form: str, path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(batch, what to call it, its bytes) of all batches that are there. An archive is
    read in one pass; nothing is unpacked to the disk.
    """
    _, folder, pattern = FORMS[form]
    names = {pattern.format(name): name for name in (*TRAIN, TEST)}
    if path.is_dir():
        for file, name in names.items():
            if os.path.lexists(path / file):
                with open_regular(path / file) as f:
                    yield name, f"{path / file}", f.read(MOST_BYTES)
        return
    members = {f"{folder}/{file}": name for file, name in names.items()}
    try:
        with open_regular(path) as packed, tarfile.open(fileobj=packed) as tar:
            for info in tar:
                if info.isreg() and info.name in members:
                    content = tar.extractfile(info)
                    assert content is not None  # as of every regular member
                    yield members[info.name], f"{path}:{info.name}", content.read(MOST_BYTES)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as e:
        raise UserError(f"{path} cannot be unpacked: {first_line(e)}") from None


def batch(form: str, called: str, raw: bytes) -> dict[str, np.ndarray]:
    """{"x": uint8 [n, 32, 32, 3], "label": int32 [n]} of one batch, whose rows are the
    red plane, the green and the blue one.
    """
    x, labels = READERS[form](called, raw)
    strange = [
        i for i, label in enumerate(labels) if not (type(label) is int and 0 <= label < CLASSES)
    ]
    require(
        not strange,
        f"{called}: the label of record {min(strange, default=0)} is none of 0 to {CLASSES - 1}",
    )
    x = np.ascontiguousarray(x.reshape(-1, COLOURS, SIDE, SIDE).transpose(0, 2, 3, 1))
    return dict(x=x, label=np.array(labels, np.int32))


def read_binary(called: str, raw: bytes) -> tuple[np.ndarray, list]:
    """Records of a byte of label and the bytes of a picture."""
    require(
        len(raw) == RECORDS * (1 + PIXELS),
        f"{called} has {len(raw)} bytes; a batch of CIFAR-10 has {RECORDS * (1 + PIXELS)}",
    )
    rows = np.frombuffer(raw, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0].tolist()


def read_python(called: str, raw: bytes) -> tuple[np.ndarray, list]:
    """A pickle of Python 2: a dictionary of an array and a list. Of the array only
    shape, order and bytes leave it, so that no object is made.
    """
    content = restricted_pickle.read(io.BytesIO(raw), ALLOWED, path=called)
    require(
        isinstance(content, dict) and {b"data", b"labels"} <= content.keys(),
        f"{called} is no batch of CIFAR-10: it has no data and labels",
    )
    labels = content[b"labels"]
    require(
        isinstance(labels, list) and len(labels) == RECORDS,
        f"{called}: its labels are no list of {RECORDS}",
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
    raise UserError(f"{called}: its data are no uint8 [{RECORDS}, {PIXELS}]")


READERS = {"binary": read_binary, "python": read_python}


class Array:
    """What stands for an array: its state is (version, shape, type, order, bytes)."""

    def __setstate__(self, state):
        self.state = state


class Kind(str):
    """A type's name; its further state (byte order) says nothing of single bytes."""

    def __setstate__(self, state):
        pass


# What NumPy's functions of making arrays are in these pickles; they themselves are
# never called.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(),
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): lambda kind, *_: Kind(kind, "latin1"),
}

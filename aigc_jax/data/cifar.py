"""CIFAR-10 (Krizhevsky 2009), as its author distributes it: in binary batches, or in pickles, which are read as data."""

import io
import tarfile
from pathlib import Path

import numpy as np

from aigc_jax import pickles
from aigc_jax.data import files
from aigc_jax.data.dataset import Dataset, images
from aigc_jax.data.images import LICENCES, VALID, from_prepared, registered
from aigc_jax.errors import UserError, require
from aigc_jax.results import file_sha256

SIDE, COLOURS, CLASSES = 32, 3, 10
PIXELS = SIDE * SIDE * COLOURS
RECORDS = 10_000  # in a batch
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
ARCHIVE = {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}  # tensorflow-datasets 4.9
# form -> (archive, the directory in it, how files are called)
FORMS = {"binary": ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", "{}.bin"), "python": ("cifar-10-python.tar.gz", "cifar-10-batches-py", "{}")}


def cifar10(config, data_dir, download) -> Dataset:
    """45,000 + 5,000 + 10,000 colour pictures of 32x32 in ten classes, from the binary or the Python archive, packed or unpacked, or prepared by
    tensorflow-datasets; valid are the last of the training pictures."""
    found = place(data_dir)
    if found is None:
        paths, folder, about = registered("cifar10", ARCHIVE, data_dir, download)
        if folder:
            train, test = from_prepared(folder, "train"), from_prepared(folder, "test")
            train, test = (dict(x=a["x"], label=a["label"]) for a in (train, test))
            return divided(train, test, about)
        found = "binary", next(iter(paths.values()))
    form, path = found
    read = (lambda name: batch(form, *member(path, form, name)))
    parts = [read(name) for name in BATCHES]
    train = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    sums = {path.name: file_sha256(path)} if path.is_file() else {}
    return divided(train, read("test_batch"), dict(licence=LICENCES["cifar10"], source=f"{path}", files=sums))


def divided(train, test, about) -> Dataset:
    cut = len(train["x"]) - VALID
    require(cut > 0, f"cifar10: {len(train['x'])} training pictures are too few; {about['source']} is not whole")
    splits = dict(train={k: a[:cut] for k, a in train.items()}, valid={k: a[cut:] for k, a in train.items()}, test=test)
    return images(splits, 255, about, classes=CLASSES)


def place(data_dir) -> tuple[str, Path] | None:
    """("binary" or "python", its archive or directory) in the first root that has one; the binary archive is verified."""
    for root in files.roots(data_dir):
        for form, (archive, folder, _) in FORMS.items():
            for where in (root / "cifar10", root):
                if (where / folder).is_dir():
                    return form, where / folder
                if (where / archive).is_file():
                    if form == "binary":
                        files.find("cifar10", ARCHIVE, data_dir)  # where it is damaged, this says so
                    return form, where / archive
    return None


def member(path: Path, form: str, name: str) -> tuple[str, bytes]:
    """(what to call it, the bytes) of one batch."""
    _, folder, pattern = FORMS[form]
    file = pattern.format(name)
    if path.is_dir():
        require((path / file).is_file(), f"cifar10: {file} is missing in {path}")
        return str(path / file), (path / file).read_bytes()
    try:
        with tarfile.open(path) as tar:  # read by name: nothing is unpacked to the disk
            inside = tar.extractfile(f"{folder}/{file}")
            require(inside is not None, f"cifar10: {folder}/{file} in {path} is no file")
            return f"{path}:{file}", inside.read()
    except (KeyError, tarfile.TarError, EOFError, OSError) as e:
        raise UserError(f"cifar10: {folder}/{file} cannot be read from {path}: {e}") from None


def batch(form: str, called: str, raw: bytes) -> dict[str, np.ndarray]:
    """{"x": uint8 [n, 32, 32, 3], "label": int32 [n]} of one batch."""
    if form == "binary":
        require(len(raw) == RECORDS * (1 + PIXELS), f"{called} has {len(raw)} bytes; a batch of CIFAR-10 has {RECORDS * (1 + PIXELS)}")
        rows = np.frombuffer(raw, np.uint8).reshape(RECORDS, 1 + PIXELS)
        label, x = rows[:, 0], rows[:, 1:]
    else:
        content = pickles.read(io.BytesIO(raw), ALLOWED, path=called)
        require(isinstance(content, dict) and {b"data", b"labels"} <= content.keys(), f"{called} is no batch of CIFAR-10: it has no data and labels")
        x, label = array(content[b"data"], called), np.array(content[b"labels"])
        require(x.shape == (RECORDS, PIXELS) and label.shape == (RECORDS,) and label.dtype.kind == "i",
                f"{called} has data {x.shape} and labels {label.shape}; a batch of CIFAR-10 has ({RECORDS}, {PIXELS}) and ({RECORDS},)")
    require(int(label.min()) >= 0 and int(label.max()) < CLASSES, f"{called} has a label {int(label.max())}; there are {CLASSES} classes, from 0")
    return dict(x=x.reshape(-1, COLOURS, SIDE, SIDE).transpose(0, 2, 3, 1), label=label.astype(np.int32))


# -- NumPy's arrays in a pickle, as plain values: only bytes of shape and type leave it


class Pending:
    """What stands for an array until its state is set."""

    def __setstate__(self, state):
        self.state = state


def array(pending, called) -> np.ndarray:
    """The uint8 array that the pickle's state describes: (version, shape, type, Fortran order, bytes)."""
    try:
        _, shape, kind, fortran, raw = pending.state
        raw = raw if isinstance(raw, bytes) else raw.encode("latin1")
        good = isinstance(pending, Pending) and kind == "u1" and len(raw) == int(np.prod(shape))
        return np.frombuffer(raw if good else b"", np.uint8).reshape(tuple(shape), order="F" if fortran else "C")
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{called}: its data is no array of bytes") from None


class Kind(str):
    """A type's name, whose further state (byte order and the like) says nothing of bytes."""

    def __setstate__(self, state):
        pass


def name_of(kind, *_):
    return Kind(kind.decode("latin1") if isinstance(kind, bytes) else kind)


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Pending(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: Pending(),
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): name_of,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
}

"""Files of tensors {name: array}: safetensors, and what PyTorch's `torch.save` leaves, in its zip format and the one before it. No code of a file
runs, and PyTorch is not needed: the pickle inside may name tensors and their storages, nothing else (`pickles`)."""

import io
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_jax import pickles
from aigc_jax.errors import UserError, require

MAGIC = 0x1950A86A20F9469CFC6C  # the first number of the older format
TYPES = dict(Float="<f4", Double="<f8", Half="<f2", Long="<i8", Int="<i4", Short="<i2", Char="<i1", Byte="<u1", Bool="?")


class Tensor(NamedTuple):
    """A tensor before its storage is at hand."""

    storage: tuple  # (type, key, number of elements)
    offset: int
    shape: tuple
    strides: tuple


def rebuilt(storage, offset, size, stride, *_):
    return Tensor(storage, offset, tuple(size), tuple(stride))


def parameter(data, *_):
    return data


class Names(OrderedDict):
    """A state dict, whose further attributes (versions) are of no interest."""

    def __setstate__(self, state):
        pass


ALLOWED: dict[tuple[str, str], Any] = {("torch", f"{name}Storage"): kind for name, kind in TYPES.items()} | {
    ("torch._utils", "_rebuild_tensor_v2"): rebuilt,
    ("torch._utils", "_rebuild_parameter"): parameter,
    ("collections", "OrderedDict"): Names,
}


def read(path) -> dict[str, np.ndarray]:
    """The tensors of a file, by its contents: a zip archive, the older format, or else safetensors."""
    path = Path(path)
    require(path.is_file(), f"{path}: no such file")
    if path.suffix == ".safetensors":
        return safetensors(path)
    return zipped(path) if zipfile.is_zipfile(path) else older(path)


def safetensors(path) -> dict[str, np.ndarray]:
    """A safetensors file, whole."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is damaged or no safetensors file: {str(e).splitlines()[0]}") from None


def stored(pid) -> tuple:
    """A persistent id: ("storage", type, key, where it was, number of elements, ...)"""
    text = lambda x: x.decode() if isinstance(x, bytes) else x
    if not isinstance(pid, tuple) or len(pid) < 5 or text(pid[0]) != "storage" or pid[1] not in TYPES.values():
        raise ValueError("a storage is not described as PyTorch does")
    return pid[1], text(pid[2]), int(pid[4])


def arrays(found, storages, path) -> dict[str, np.ndarray]:
    """{name: array} of {name: Tensor}; storages: (type, key, count) -> array [count]."""
    require(isinstance(found, dict) and found and all(isinstance(x, Tensor) for x in found.values()), f"{path} is no state dict: names and tensors alone")
    out = {}
    for name, tensor in found.items():
        flat = storages(tensor.storage)
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        sound = min((tensor.offset, *tensor.shape, *tensor.strides), default=0) >= 0 and (0 in tensor.shape or last < len(flat))
        require(sound, f"{path}: the tensor {name!r} reaches beyond its storage")
        strides = [s * flat.itemsize for s in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides) if 0 not in tensor.shape else np.zeros(tensor.shape, flat.dtype)
        out[name.decode() if isinstance(name, bytes) else name] = np.array(view)
    return out


def zipped(path) -> dict[str, np.ndarray]:
    """torch.save since 1.6: NAME/data.pkl, and NAME/data/KEY for every storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            require(len(inside) == 1, f"{path} is a zip archive without PyTorch's data.pkl")
            root = inside[0].removesuffix("data.pkl")
            found = pickles.read(io.BytesIO(archive.read(inside[0])), ALLOWED, stored, str(path))

            def storage(described):
                kind, key, count = described
                raw = archive.read(f"{root}data/{key}")
                require(len(raw) == count * np.dtype(kind).itemsize, f"{path}: the storage {key} has {len(raw)} bytes, not those of {count} numbers")
                return np.frombuffer(raw, kind)

            return arrays(found, storage, path)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError) as e:
        raise UserError(f"{path} is damaged: {e}") from None


def older(path) -> dict[str, np.ndarray]:
    """torch.save before that: a magic number, a version, the writer's word sizes, the pickle, the storages' keys, and then each storage as its number of
    elements (8 bytes) and its numbers."""
    with open(path, "rb") as f:
        read_one = lambda: pickles.read(f, ALLOWED, stored, str(path))
        require(read_one() == MAGIC, f"{path} is neither safetensors nor what torch.save writes")
        read_one(), read_one()
        found, keys = read_one(), read_one()
        require(isinstance(found, dict) and isinstance(keys, list), f"{path} is no state dict: names and tensors alone")
        kinds = {x.storage[1]: x.storage for x in found.values() if isinstance(x, Tensor)}
        storages = {}
        for key in (k.decode() if isinstance(k, bytes) else k for k in keys):
            require(key in kinds, f"{path} has a storage {key!r} that no tensor needs")
            kind, _, count = kinds[key]
            raw = f.read(8)
            there = int.from_bytes(raw, "little")
            data = f.read(count * np.dtype(kind).itemsize)
            require(len(raw) == 8 and there == count and len(data) == count * np.dtype(kind).itemsize, f"{path} is cut off within its storages")
            storages[key] = np.frombuffer(data, kind)
    missing = next((key for key in kinds if key not in storages), None)
    require(missing is None, f"{path} lacks the storage {missing!r}")
    return arrays(found, lambda described: storages[described[1]], path)

"""Readers of tensor files {name: array}: safetensors, and state dicts written by
PyTorch's `torch.save`, in the zip format and the format before it. Code of a file is
never executed, and PyTorch is not needed: the pickle may refer only to tensors and
their storages (`restricted_pickle`).
"""

import io
import math
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.utils import restricted_pickle
from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import require_regular_file

MAGIC = 0x1950A86A20F9469CFC6C  # the first number of the legacy format
ZIP = b"PK\x03\x04"  # the first bytes of the zip format
ORDERS = {b"little": "<", b"big": ">"}
# torch.<name>Storage -> NumPy dtype of its numbers in a file
TYPES = dict(
    Float="<f4",
    Double="<f8",
    Half="<f2",
    Long="<i8",
    Int="<i4",
    Short="<i2",
    Char="<i1",
    Byte="<u1",
    Bool="?",
)


class Storage(NamedTuple):
    """A contiguous block of numbers, before it is read."""

    kind: str  # NumPy dtype of the numbers
    key: str  # name within the file
    length: int  # number of elements

    @property
    def num_bytes(self) -> int:
        """The length in bytes."""
        return self.length * np.dtype(self.kind).itemsize


class Tensor(NamedTuple):
    """A strided view of a storage; offset and strides are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def to_str(x: str | bytes) -> str:
    """Return a string of the pickle as str; Python 2 wrote bytes."""
    return x.decode() if isinstance(x, bytes) else x


def parse_storage_id(persistent_id: Any) -> Storage:
    """Return the storage of a persistent id: ("storage", type, key, device, number of
    elements), and in the legacy format the metadata of a view, which must be None.
    Raise a ValueError for any other id.
    """
    is_valid = (
        isinstance(persistent_id, tuple)
        and len(persistent_id) >= 5
        and to_str(persistent_id[0]) == "storage"
        and persistent_id[1] in TYPES.values()
        and index(persistent_id[4]) >= 0
    )
    if (
        not is_valid
        or not isinstance(to_str(persistent_id[2]), str)
        or any(x is not None for x in persistent_id[5:])
    ):
        raise ValueError("a storage is not described as PyTorch describes one")
    return Storage(persistent_id[1], to_str(persistent_id[2]), index(persistent_id[4]))


def rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """Return the tensor that PyTorch's `_rebuild_tensor_v2` describes.

    Args:
      storage: a Storage.
      offset: index of the first element in the storage.
      shape: of the tensor.
      strides: in elements, one for each axis.
      *_: further arguments of PyTorch's function, which are ignored.

    Raises:
      ValueError: an argument has another type, or shape and strides differ in length.
    """
    try:
        tensor = Tensor(
            storage, index(offset), tuple(map(index, shape)), tuple(map(index, strides))
        )
    except TypeError:
        tensor = None
    if (
        tensor is None
        or not isinstance(storage, Storage)
        or len(tensor.shape) != len(tensor.strides)
    ):
        raise ValueError("a tensor is not described as PyTorch describes one")
    return tensor


def unwrap_parameter(tensor: Tensor, *_: Any) -> Tensor:
    """Return the tensor that PyTorch's `_rebuild_parameter` wraps."""
    return tensor


class Names(OrderedDict):
    """A state dict, without its additional attributes (versions)."""

    def __setstate__(self, state) -> None:
        pass


ALLOWED: dict[tuple[str, str], Any] = {
    ("torch", f"{name}Storage"): kind for name, kind in TYPES.items()
} | {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): unwrap_parameter,
    ("collections", "OrderedDict"): Names,
}


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:  # of .safetensors or torch.save
    """Read the tensors of a file: safetensors by the suffix of its name, the formats of
    torch.save by the first bytes.

    Raises:
      UserError: the file is not regular, of another format, or damaged.
    """
    path = Path(path)
    require_regular_file(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with open(path, "rb") as f:
        form = read_zip_format if f.read(len(ZIP)) == ZIP else read_legacy_format
    return form(path)


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read all tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is damaged or no safetensors file: {first_line(e)}") from None


def read_safetensors_header(path: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return {name: (shape, dtype such as "F32")} of a safetensors file, without
    reading the values.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as f:
            parts = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118
            return {name: (tuple(x.get_shape()), x.get_dtype()) for name, x in parts.items()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is damaged or no safetensors file: {first_line(e)}") from None


def check_state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    """Return an unpickled object as a state dict {name: tensor}; raise a UserError if
    it is not one.

    Args:
      content: the unpickled object.
      path: the file, for error messages.
    """
    is_valid = (
        isinstance(content, dict)
        and content
        and all(
            isinstance(x, Tensor) and isinstance(name, str | bytes) for name, x in content.items()
        )
    )
    require(is_valid, f"{path} is not a state dict: a state dict maps names to tensors only")
    return {
        name if isinstance(name, str) else name.decode(errors="replace"): x
        for name, x in content.items()
    }


def view_storage(values: np.ndarray, tensor: Tensor) -> np.ndarray:  # [count] -> [*shape]
    """Return a tensor as a view of its storage, so that strides of 0 need no memory;
    raise a ValueError if the view exceeds the storage.

    Args:
      values: all numbers of the storage [count].
      tensor: the description of the view.
    """
    last = tensor.offset + sum(
        (n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)
    )
    count = math.prod(tensor.shape)
    if (
        min((tensor.offset, *tensor.shape, *tensor.strides)) < 0
        or max(tensor.shape, default=0) >= 2**31
        or (count and last >= len(values))
    ):
        raise ValueError("beyond its storage")
    if count == 0:
        return np.zeros(tensor.shape, values.dtype)
    strides = [
        s * values.itemsize if n > 1 else 0
        for n, s in zip(tensor.shape, tensor.strides, strict=True)
    ]
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )


def read_arrays(
    tensors: dict[str, Tensor], read_storage: Callable[[Storage], np.ndarray], path: str | Path
) -> dict[str, np.ndarray]:
    """Return the tensors as arrays {name: [*shape]}.

    Args:
      tensors: {name: description}.
      read_storage: storage -> array [count]; called once per storage.
      path: the file, for error messages.

    Raises:
      UserError: two descriptions of a storage differ, or a tensor exceeds its storage.
    """
    storages, out = {}, {}
    for name, tensor in tensors.items():
        described = tensor.storage
        if described.key not in storages:
            storages[described.key] = described, read_storage(described)
        require(
            storages[described.key][0] == described,
            f"{path} is damaged: its descriptions of the storage {described.key!r} differ",
        )
        try:
            out[name] = view_storage(storages[described.key][1], tensor)
        except (ValueError, OverflowError):  # NumPy limits sizes too
            raise UserError(
                f"{path} is damaged: the tensor {name!r} reaches beyond its storage"
            ) from None
    return out


class TorchArchive:
    """A zip archive of torch.save, whose members are stored uncompressed."""

    def __init__(self, path: str | Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.names = archive.namelist()
        roots = [n.removesuffix("data.pkl") for n in self.names if n.endswith("/data.pkl")]
        require(len(roots) == 1, f"{path} is a zip archive without PyTorch's data.pkl")
        self.root = roots[0]

    def read_member(self, name: str, num_bytes: int | None = None) -> bytes:
        """Return the bytes of a member; raise a UserError if they are not
        `num_bytes`.
        """
        info = self.archive.getinfo(self.root + name)
        require(
            info.compress_type == zipfile.ZIP_STORED,
            f"{self.path} is damaged: {info.filename} is compressed, which PyTorch never does",
        )
        require(
            num_bytes in (None, info.file_size),
            f"{self.path} is damaged: {info.filename} has {info.file_size} bytes, not {num_bytes}",
        )
        return self.archive.read(info)

    def read_byte_order(self) -> str:  # "<" or ">"
        """Return the byte order of the numbers in NumPy's notation, "<" or ">"."""
        has_order = f"{self.root}byteorder" in self.names
        order = self.read_member("byteorder") if has_order else b"little"
        require(
            order in ORDERS,
            f"{self.path} is damaged: its byte order is {order[:20]!r}, neither little nor big",
        )
        return ORDERS[order]


def read_zip_format(path: str | Path) -> dict[str, np.ndarray]:  # of torch.save
    """Read the format of torch.save since 1.6: NAME/data.pkl, NAME/data/KEY for every
    storage and, since 2.1, NAME/byteorder.
    """
    try:
        with zipfile.ZipFile(path) as file:
            archive = TorchArchive(path, file)
            pickled = io.BytesIO(archive.read_member("data.pkl"))
            tensors = check_state_dict(
                restricted_pickle.read_pickle(pickled, ALLOWED, parse_storage_id, str(path)), path
            )
            order = archive.read_byte_order()
            kind = lambda storage: np.dtype(storage.kind).newbyteorder(order)
            read = lambda x: np.frombuffer(
                archive.read_member(f"data/{x.key}", x.num_bytes), kind(x)
            )
            return read_arrays(tensors, read, path)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, RuntimeError, ValueError) as e:
        raise UserError(f"{path} is damaged: {e}") from None


def read_legacy_format(path: str | Path) -> dict[str, np.ndarray]:  # of torch.save
    """Read the format of torch.save before 1.6: a magic number, a version, the writer's
    word sizes, the pickle, the storages' keys, and then each storage as its number of
    elements (8 bytes) and its numbers. Raise a UserError for files that PyTorch wrote
    on machines of the other byte order.
    """
    with open(path, "rb") as f:
        read_one = lambda: restricted_pickle.read_pickle(f, ALLOWED, parse_storage_id, str(path))
        require(
            read_one() == MAGIC, f"{path} is neither a safetensors file nor a file of torch.save"
        )
        read_one()
        about = read_one()
        same = not isinstance(about, dict) or all(
            about.get(key, True) is True for key in ("little_endian", b"little_endian")
        )
        require(same, f"{path} comes from a machine of another byte order")
        tensors, keys = check_state_dict(read_one(), path), read_one()
        kinds = {x.storage.key: x.storage for x in tensors.values()}
        keys = (
            [to_str(key) for key in keys]
            if isinstance(keys, list) and all(isinstance(key, str | bytes) for key in keys)
            else []
        )
        missing = next((key for key in kinds if key not in keys), None)
        require(missing is None, f"{path} is damaged: it lacks the storage {missing!r}")
        require(
            len(keys) == len(kinds), f"{path} is damaged: it lists storages that no tensor needs"
        )
        storages = {}
        for described in (kinds[key] for key in keys):
            length, remaining = (
                int.from_bytes(f.read(8), "little"),
                os.fstat(f.fileno()).st_size - f.tell(),
            )
            require(
                length == described.length and described.num_bytes <= remaining,
                f"{path} is truncated or damaged within its storages",
            )
            storages[described.key] = np.frombuffer(f.read(described.num_bytes), described.kind)
        require(not f.read(1), f"{path} is damaged: it has data after its last storage")
    return read_arrays(tensors, lambda described: storages[described.key], path)

"""Trees of arrays as files: Orbax, NumPy, shares of several processes; digests."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from aigc_jax.core.distributed import Pieces, host, own
from aigc_jax.core.method import PyTree
from aigc_jax.core.trees import path_of
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import require


def is_key(leaf: Any) -> bool:
    """Return whether a leaf is a typed key of jax.random."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flatten(tree: PyTree, copied: Callable = lambda x: np.array(host(x))) -> dict[str, Any]:
    """{path: a copy of the leaf on the host}; keys as their raw words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(p): copied(jax.random.key_data(x) if is_key(x) else x) for p, x in leaves}


def share(tree: PyTree) -> dict[str, np.ndarray] | dict[str, Pieces]:
    """What this process is to write of a tree: all, or its pieces beside others."""
    return flatten(tree) if jax.process_count() == 1 else flatten(tree, own)


def fill(template: PyTree, flat: dict[str, np.ndarray], where: object) -> PyTree:
    """The inverse of `flatten`: a tree like the template, on the host but for keys."""

    def leaf(path, like):
        name = path_of(path)
        require(name in flat, f"{where} has no {name}: it was written by another version or method")
        value = flat[name]
        raw = jax.eval_shape(jax.random.key_data, like) if is_key(like) else like
        require(
            value.shape == raw.shape and value.dtype == raw.dtype,
            f"{where}: {name} is {value.dtype} {value.shape}, expected {raw.dtype} {raw.shape}",
        )
        return (
            jax.random.wrap_key_data(jnp.asarray(value), impl="threefry2x32")
            if is_key(like)
            else value
        )

    return jax.tree_util.tree_map_with_path(leaf, template)


def digest(flat: dict[str, np.ndarray]) -> str:
    """SHA-256 of path, dtype, shape and bytes of every leaf."""
    h = hashlib.sha256()
    for name, value in sorted(flat.items()):
        _add(h, name, value)
    return h.hexdigest()


def digests(states: PyTree, count: int) -> list[str]:
    """Of each of the stacked trials; no more than a leaf is on the host at once."""
    hashes = [hashlib.sha256() for _ in range(count)]
    for name, leaf in sorted(flatten(states, lambda x: x).items()):
        value = host(leaf)
        for i, h in enumerate(hashes):
            _add(h, name, value[i : i + 1])
    return [h.hexdigest() for h in hashes]


def _add(h, name, value):
    h.update(f"{name} {value.dtype} {value.shape}\n".encode())
    h.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)


def _orbax():
    """Orbax of this process alone: of several, one writes and each reads by itself."""
    alone = (
        dict(primary_host=jax.process_index(), active_processes={jax.process_index()})
        if jax.process_count() > 1
        else {}
    )
    options = ocp.options.MultiprocessingOptions(**alone)
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
        multiprocessing_options=options,
    )


def write_orbax(folder: Path, trees: dict) -> None:
    """Write every tree as an Orbax checkpoint folder/name."""
    with _quiet(), _orbax() as writer:
        for name, tree in trees.items():
            writer.save(folder / name, tree)
            (folder / name / "commit_success.txt").write_text("committed\n")  # Orbax wrote the path


def read_orbax(folder: Path, name: str) -> dict:
    """Return the tree in folder/name; {} where there is no such directory."""
    if not (folder / name).is_dir():
        return {}
    with _quiet(), _orbax() as reader:
        return dict(reader.restore(folder / name))


def format_bounds(bounds: Iterable[tuple[int, int]]) -> str:
    """Return (start, stop) of each axis as "0:8,4:8", for names in a share."""
    return ",".join(f"{low}:{high}" for low, high in bounds)


def read_shares(folder: Path, name: str, shapes: dict, wanted: Callable | None) -> dict:
    """A tree whose pieces lie in several shares, of which no more than an array is in
    memory beside what is wanted.
    """
    whole = lambda shape: tuple((0, n) for n in shape)
    out = {
        k: Pieces(
            shape,
            np.uint8,
            dict.fromkeys(map(tuple, wanted(k, shape) if wanted else [whole(shape)])),
        )
        for k, shape in shapes.items()
    }
    for share in sorted(folder.glob(f"{name}.*.npz")):
        for key, read in _members(share):
            k, _, said = key.rpartition("|")
            there = tuple(tuple(map(int, axis.split(":"))) for axis in said.split(",") if axis)
            met = [
                (bounds, common)
                for bounds in out[k].parts
                if (common := _common(bounds, there)) is not None
            ]
            if not met:
                continue
            x = read()
            for bounds, common in met:
                if out[k].parts[bounds] is None:
                    out[k].dtype, out[k].parts[bounds] = (
                        x.dtype,
                        np.empty([b - a for a, b in bounds], x.dtype),
                    )
                at = lambda begun, common=common: tuple(
                    slice(a - c, b - c) for (a, b), (c, _) in zip(common, begun, strict=True)
                )
                out[k].parts[bounds][at(bounds)] = x[at(there)]
    return out if wanted else {k: pieces.parts[whole(shapes[k])] for k, pieces in out.items()}


def _common(one, other):
    """The bounds of what two parts of an array share, or None."""
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return both if all(a < b for a, b in both) else None


# Ends the names of bfloat16 arrays, which NumPy's files have no type for: their bits.
BFLOAT16 = "#bfloat16"


def count_bytes(tree: dict) -> int:
    """Return how much memory the arrays of a tree take."""
    return sum(x.nbytes for x in tree.values())


def write_npz(folder: Path, trees: dict) -> None:
    """Write every tree as folder/name.npz, flushed; bfloat16 as its bits."""
    bits = lambda name, x: (
        (name + BFLOAT16, x.view(np.uint16)) if x.dtype == jnp.bfloat16 else (name, x)
    )
    for name, tree in trees.items():
        with open(folder / f"{name}.npz", "wb") as f:
            np.savez(f, **dict(bits(*item) for item in tree.items()))
            f.flush()
            os.fsync(f.fileno())


def _members(path: Path):
    """(name, a function that reads it) of each array in an .npz file."""
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            whole = name.removesuffix(BFLOAT16)
            yield (
                whole,
                (
                    lambda name=name, wide=whole == name: (
                        file[name] if wide else file[name].view(jnp.bfloat16)
                    )
                ),
            )


def read_npz(folder: Path, name: str) -> dict:
    """Return the arrays in folder/name.npz; {} where there is no such file."""
    path = folder / f"{name}.npz"
    return {k: read() for k, read in _members(path)} if path.is_file() else {}


def file_digests(path: Path) -> dict[str, str]:
    """{name: SHA-256} of every file below a directory, but for meta.json."""
    names = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return {name: file_sha256(path / name) for name in sorted(names) if name != "meta.json"}


@contextlib.contextmanager
def _quiet():
    """Orbax logs what it also raises, tracebacks included."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

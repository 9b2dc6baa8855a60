"""Serialization of trees of arrays: Orbax, NumPy, shards by process; digests."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.distributed import LocalShards, copy_local_shards, gather_to_host
from aigc_jax.core.method import PyTree
from aigc_jax.core.trees import format_key_path
from aigc_jax.utils.disk import file_sha256
from aigc_jax.utils.errors import require

if TYPE_CHECKING:
    import orbax.checkpoint as ocp


def is_prng_key(leaf: Any) -> bool:
    """Return whether a leaf is a typed key of jax.random."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flatten_state(
    tree: PyTree, convert: Callable[[Any], Any] = lambda x: np.array(gather_to_host(x))
) -> dict[str, Any]:  # {path: leaf}
    """Return {path: leaf}.

    Args:
      tree: for example a TrainState.
      convert: applied to each leaf, PRNG keys as their raw words; by default a copy to
        a NumPy array.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        format_key_path(p): convert(jax.random.key_data(x) if is_prng_key(x) else x)
        for p, x in leaves
    }


def flatten_local(tree: PyTree) -> dict[str, np.ndarray] | dict[str, LocalShards]:  # {path: leaf}
    """Return the leaves that this process writes: all, or with several processes its
    shards.
    """
    return (
        flatten_state(tree) if jax.process_count() == 1 else flatten_state(tree, copy_local_shards)
    )


def restore_like(template: PyTree, leaves: Mapping[str, np.ndarray], source: object) -> PyTree:
    """Invert `flatten_state`: return a tree like the template, on the host except for
    PRNG keys.

    Args:
      template: a tree of arrays or of their shapes and dtypes.
      leaves: {path: array}; further paths are ignored.
      source: its name in error messages.

    Raises:
      UserError: a path is missing, or its shape or dtype differs.
    """

    def leaf(path, like):
        name = format_key_path(path)
        require(
            name in leaves, f"{source} has no {name}: it was written by another version or method"
        )
        value = leaves[name]
        raw = jax.eval_shape(jax.random.key_data, like) if is_prng_key(like) else like
        require(
            value.shape == raw.shape and value.dtype == raw.dtype,
            f"{source}: {name} is {value.dtype} {value.shape}, expected {raw.dtype} {raw.shape}",
        )
        return (
            jax.random.wrap_key_data(jnp.asarray(value), impl="threefry2x32")
            if is_prng_key(like)
            else value
        )

    return jax.tree_util.tree_map_with_path(leaf, template)


def digest_leaves(leaves: Mapping[str, np.ndarray]) -> str:  # SHA-256
    """Return the SHA-256 of path, dtype, shape and bytes of every leaf."""
    h = hashlib.sha256()
    for name, value in sorted(leaves.items()):
        _update_hash(h, name, value)
    return h.hexdigest()


def digest_trials(states: PyTree, num_trials: int) -> list[str]:  # [N, ...] -> N SHA-256
    """Return the digest of each of the stacked trials, with at most one leaf on the
    host at a time.
    """
    hashes = [hashlib.sha256() for _ in range(num_trials)]
    for name, leaf in sorted(flatten_state(states, lambda x: x).items()):
        value = gather_to_host(leaf)
        for i, h in enumerate(hashes):
            _update_hash(h, name, value[i : i + 1])
    return [h.hexdigest() for h in hashes]


def _update_hash(h: Any, path: str, leaf: np.ndarray) -> None:
    """Update a hash with the path, dtype, shape and bytes of a leaf."""
    h.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
    h.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)


def _make_checkpointer() -> "ocp.Checkpointer":
    """Return a checkpointer of this process alone: of several processes, one writes,
    and each reads independently. Orbax is imported here: its import takes as long as a
    training step's, and runs that only sample or evaluate exported trials need none.
    """
    import orbax.checkpoint as ocp

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


def write_orbax(folder: Path, trees: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write every tree {path: array} of {name: tree} as an Orbax checkpoint
    folder/name.
    """
    with _silence_orbax(), _make_checkpointer() as writer:
        for name, tree in trees.items():
            writer.save(folder / name, tree)
            (folder / name / "commit_success.txt").write_text("committed\n")  # Orbax wrote the path


def read_orbax(folder: Path, name: str) -> dict[str, np.ndarray]:  # {path: array}
    """Return the tree in folder/name; {} where the directory does not exist."""
    if not (folder / name).is_dir():
        return {}
    with _silence_orbax(), _make_checkpointer() as reader:
        return dict(reader.restore(folder / name))


def format_bounds(bounds: Iterable[tuple[int, int]]) -> str:  # "0:8,4:8"
    """Format (start, stop) of each axis as "0:8,4:8", for array names in files."""
    return ",".join(f"{low}:{high}" for low, high in bounds)


def read_shards(
    folder: Path,
    name: str,
    shapes: Mapping[str, Sequence[int]],
    slices: Callable[[str, Sequence[int]], list[tuple]] | None,
) -> dict[str, Any]:  # {path: array, or LocalShards where `slices` is given}
    """Read a tree whose slices are stored in the files of several processes. Beside the
    result, at most one stored array is in memory.

    Args:
      folder: the checkpoint's directory.
      name: name of the tree.
      shapes: {path: shape} of the complete arrays.
      slices: (path, shape) -> bounds of the slices to read; None: complete arrays.
    """
    full_bounds = lambda shape: tuple((0, n) for n in shape)
    out = {
        k: LocalShards(
            shape,
            np.uint8,
            dict.fromkeys(map(tuple, slices(k, shape) if slices else [full_bounds(shape)])),
        )
        for k, shape in shapes.items()
    }
    for share in sorted(folder.glob(f"{name}.*.npz")):
        for key, read in _iterate_arrays(share):
            k, _, text = key.rpartition("|")
            stored = tuple(tuple(map(int, axis.split(":"))) for axis in text.split(",") if axis)
            if any(_intersect_bounds(bounds, stored) for bounds in out[k].parts):
                _copy_common(out[k], stored, read())
    return out if slices else {k: pieces.parts[full_bounds(shapes[k])] for k, pieces in out.items()}


def _copy_common(shards: LocalShards, stored: tuple, x: np.ndarray) -> None:
    """Copy the overlap of x, the slice of an array with bounds `stored`, to shards."""
    for bounds, part in shards.parts.items():
        if (common := _intersect_bounds(bounds, stored)) is None:
            continue
        if part is None:
            part = np.empty([b - a for a, b in bounds], x.dtype)
            shards.dtype, shards.parts[bounds] = x.dtype, part
        at = lambda origin, common=common: tuple(
            slice(a - c, b - c) for (a, b), (c, _) in zip(common, origin, strict=True)
        )
        part[at(bounds)] = x[at(stored)]


def _intersect_bounds(
    one: Iterable[tuple[int, ...]], other: Iterable[tuple[int, ...]]
) -> tuple[tuple[int, int], ...] | None:  # (start, stop) of each axis
    """Return the bounds of the overlap of two slices of an array, or None."""
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return both if all(a < b for a, b in both) else None


# Name suffix of bfloat16 arrays, stored as their bits: NumPy's files lack the dtype.
BFLOAT16 = "#bfloat16"


def count_bytes(tree: Mapping[str, Any]) -> int:  # {path: array}
    """Return the total size of a tree's arrays in bytes."""
    return sum(x.nbytes for x in tree.values())


def write_npz(folder: Path, trees: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write every tree {path: array} of {name: tree} as folder/name.npz, flushed;
    bfloat16 as its bits.
    """
    bits = lambda name, x: (
        (name + BFLOAT16, x.view(np.uint16)) if x.dtype == jnp.bfloat16 else (name, x)
    )
    for name, tree in trees.items():
        with open(folder / f"{name}.npz", "wb") as f:
            np.savez(f, **dict(bits(*item) for item in tree.items()))
            f.flush()
            os.fsync(f.fileno())


def _iterate_arrays(path: Path) -> Iterator[tuple[str, Callable]]:  # (name, reader)
    """Yield (name, function that reads the array) of each array in an .npz file."""
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            base = name.removesuffix(BFLOAT16)
            yield (
                base,
                (
                    lambda name=name, is_native=base == name: (
                        file[name] if is_native else file[name].view(jnp.bfloat16)
                    )
                ),
            )


def read_npz(folder: Path, name: str) -> dict[str, np.ndarray]:  # {path: array}
    """Return the arrays in folder/name.npz; {} where the file does not exist."""
    path = folder / f"{name}.npz"
    return {k: read() for k, read in _iterate_arrays(path)} if path.is_file() else {}


def digest_files(folder: Path) -> dict[str, str]:  # {relative path: SHA-256}
    """Return {name: SHA-256} of every file below a directory, except meta.json."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {name: file_sha256(folder / name) for name in sorted(names) if name != "meta.json"}


@contextlib.contextmanager
def _silence_orbax() -> Iterator[None]:
    """Silence Orbax's log, which repeats raised exceptions with their tracebacks."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

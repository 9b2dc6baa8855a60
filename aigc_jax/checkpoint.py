"""Checkpoints: Orbax trees with a hash, newest two kept, damage noticed and reported. Nothing else in the project sees Orbax.

CHECKPOINTS/<step>/ holds `state` (stacked TrainStates), `best` (each trial's best so far, without its optimiser state;
absent where the config names no metric) and `meta.json`: the step, what the loop adds, the SHA-256 of every file, and a
hash of all this. It is written as <step>.saving and renamed when it is whole, so that a killed process leaves older ones
as they were; and it is verified before Orbax sees a byte of it, since Orbax restores flipped bits without a word. What a
trial of a group is left with is state.npz and best.npz in place of Orbax's directories.
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from aigc_jax.core import path_of
from aigc_jax.errors import UserError, require
from aigc_jax.processes import first, host
from aigc_jax.results import file_sha256, write_atomically

KEEP = 2


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flatten(tree) -> dict[str, np.ndarray]:
    """{path: a copy of the leaf on the host}; keys as their raw words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(p): np.array(host(jax.random.key_data(x) if _is_key(x) else x)) for p, x in leaves}


def fill(template, flat: dict[str, np.ndarray], where):
    """The inverse of `flatten`: a tree like the template, on the host but for its keys."""

    def leaf(path, like):
        name = path_of(path)
        require(name in flat, f"{where} has no {name}: it was written by another version or method")
        value = flat[name]
        raw = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
        require(value.shape == raw.shape and value.dtype == raw.dtype,
                f"{where}: {name} is {value.dtype} {value.shape}, expected {raw.dtype} {raw.shape}")
        return jax.random.wrap_key_data(value, impl="threefry2x32") if _is_key(like) else value

    return jax.tree_util.tree_map_with_path(leaf, template)


def digest(flat: dict[str, np.ndarray]) -> str:
    """SHA-256 of path, dtype, shape and bytes of every leaf."""
    h = hashlib.sha256()
    for name, value in sorted(flat.items()):
        h.update(f"{name} {value.dtype} {value.shape}\n".encode())
        h.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return h.hexdigest()


class Checkpoints:
    """The checkpoints of one run or group. Use as a context manager: leaving it waits for the last save."""

    def __init__(self, path):
        self.path = Path(path).absolute()
        self._pool = ThreadPoolExecutor(1)
        self._saving = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown()

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, good or not, newest first."""
        names = [p.name for p in self.path.glob("*") if p.is_dir()]
        return sorted((int(n) for n in names if n.isdecimal()), reverse=True)

    def save(self, step: int, state: dict, best: dict, meta: dict, plain=False):
        """Write flattened trees in the background; an error of the save before this one is raised here. plain: as NumPy's .npz, which
        for many small trees takes a thirtieth of the time."""
        self.wait()
        if not first():
            return
        self._saving = self._pool.submit(self._write, step, state, best, meta, plain)

    def wait(self):
        """Return when nothing is being written any more; raises what the writing raised."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _write(self, step, state, best, meta, plain):
        target, part = self.path / str(step), self.path / f"{step}.saving"
        if target.exists():
            return
        try:
            part.mkdir(parents=True)
            # Orbax floods the terminal when a disk fills under it: find out before.
            if shutil.disk_usage(part).free < 1.05 * sum(v.nbytes for v in [*state.values(), *best.values()]) + 2**20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            (_write_npz if plain else _write_orbax)(part, {name: tree for name, tree in dict(state=state, best=best).items() if tree})
            meta = meta | dict(step=step, files=_files(part))
            write_atomically(part / "meta.json", json.dumps(meta | dict(hash=_hash(meta)), indent=1))
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # room for what comes next
            raise
        for old in self.steps()[KEEP:]:
            shutil.rmtree((self.path / str(old)).rename(self.path / f"{old}.deleted"))

    def tidy(self):
        """Remove what killed processes left half done."""
        for path in self.path.glob("*") if first() else ():
            if path.suffix in (".saving", ".deleted"):
                shutil.rmtree(path, ignore_errors=True)

    def read(self, step: int) -> tuple[dict, dict, dict]:
        """(state, best, meta) of one checkpoint, verified. Raises a UserError that says what is wrong with it."""
        path = self.path / str(step)
        try:
            meta = json.loads((path / "meta.json").read_text())
            given = meta.pop("hash")
        except (OSError, ValueError, AttributeError, KeyError):
            raise UserError(f"checkpoint {path} is damaged: it has no readable meta.json") from None
        require(_hash(meta) == given and meta["step"] == step, f"checkpoint {path} is damaged: meta.json does not match its hash")
        files = _files(path)
        for name in meta["files"].keys() | files.keys():
            require(meta["files"].get(name) == files.get(name), f"checkpoint {path} is damaged: {name} does not match its hash")
        read = _read_npz if (path / "state.npz").is_file() else _read_orbax
        return *(read(path, name) for name in ("state", "best")), meta | dict(hash=given)

    def newest(self, report) -> tuple[dict, dict, dict] | None:
        """The newest good checkpoint, or None where there is none; each damaged one is reported in one sentence."""
        for step in self.steps():
            try:
                return self.read(step)
            except UserError as e:
                report(f"{e}; going back to the one before it")
        return None

    def set_aside(self, newer_than: int):
        """Rename damaged checkpoints that the run will write again."""
        for step in self.steps() if first() else ():
            if step > newer_than:
                shutil.rmtree(self.path / f"{step}.damaged", ignore_errors=True)
                (self.path / str(step)).rename(self.path / f"{step}.damaged")


def _orbax():
    """Orbax of this process alone: of several, one writes and each reads by itself."""
    alone = dict(primary_host=jax.process_index(), active_processes={jax.process_index()}) if jax.process_count() > 1 else {}
    options = ocp.options.MultiprocessingOptions(**alone)
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options)


def _write_orbax(folder: Path, trees: dict):
    with _quiet(), _orbax() as writer:
        for name, tree in trees.items():
            writer.save(folder / name, tree)


def _read_orbax(folder: Path, name: str) -> dict:
    if not (folder / name).is_dir():
        return {}
    with _quiet(), _orbax() as reader:
        return dict(reader.restore(folder / name))


def _write_npz(folder: Path, trees: dict):
    for name, tree in trees.items():
        buffer = io.BytesIO()
        np.savez(buffer, **tree)
        write_atomically(folder / f"{name}.npz", buffer.getvalue())


def _read_npz(folder: Path, name: str) -> dict:
    if not (folder / f"{name}.npz").is_file():
        return {}
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def _files(path: Path) -> dict[str, str]:
    """{name: SHA-256} of every file below a directory, but for meta.json."""
    names = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    return {name: file_sha256(path / name) for name in sorted(names) if name != "meta.json"}


def _hash(meta: dict) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _quiet():
    """Orbax logs what it also raises, tracebacks included."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

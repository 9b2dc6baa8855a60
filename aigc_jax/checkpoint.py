"""Checkpoints: Orbax trees with a hash, newest two kept, damage noticed and reported. Nothing else in the project sees Orbax.

CHECKPOINTS/<step>/ holds `state` (stacked TrainStates), `best` (each trial's best so far, without its optimiser state;
absent where the config names no metric) and `meta.json`: the step, what the loop adds, the SHA-256 of every file, and a
hash of all this. It is written as <step>.saving and renamed when it is whole, so that a killed process leaves older ones
as they were; and it is verified before Orbax sees a byte of it, since Orbax restores flipped bits without a word. What a
trial of a group is left with is state.npz and best.npz in place of Orbax's directories.

Of several processes each writes what lies on its own devices, state.0.npz, state.1.npz and so on, whose arrays are called
NAME|START:STOP,... , and reads what its devices will hold: any number of processes goes on with what any other left.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from aigc_jax import stored
from aigc_jax.core import path_of
from aigc_jax.errors import FormatError, UserError, require
from aigc_jax.processes import Pieces, first, host, own
from aigc_jax.results import check_room, file_sha256

KEEP = 2


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flatten(tree, copied: Callable = lambda x: np.array(host(x))) -> dict[str, np.ndarray]:
    """{path: a copy of the leaf on the host}; keys as their raw words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(p): copied(jax.random.key_data(x) if _is_key(x) else x) for p, x in leaves}


def share(tree) -> dict[str, np.ndarray | Pieces]:
    """What this process is to write of a tree: all of it, or of several processes its pieces."""
    return flatten(tree) if jax.process_count() == 1 else flatten(tree, own)


def fill(template, flat: dict[str, np.ndarray], where):
    """The inverse of `flatten`: a tree like the template, on the host but for its keys."""

    def leaf(path, like):
        name = path_of(path)
        require(name in flat, f"{where} has no {name}: it was written by another version or method")
        value = flat[name]
        raw = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
        require(value.shape == raw.shape and value.dtype == raw.dtype,
                f"{where}: {name} is {value.dtype} {value.shape}, expected {raw.dtype} {raw.shape}")
        return jax.random.wrap_key_data(np.asarray(value), impl="threefry2x32") if _is_key(like) else value

    return jax.tree_util.tree_map_with_path(leaf, template)


def digest(flat: dict[str, np.ndarray]) -> str:
    """SHA-256 of path, dtype, shape and bytes of every leaf."""
    h = hashlib.sha256()
    for name, value in sorted(flat.items()):
        _add(h, name, value)
    return h.hexdigest()


def digests(states, count: int) -> list[str]:
    """Of each of the stacked trials by itself; no more is on the host at once than a leaf."""
    hashes = [hashlib.sha256() for _ in range(count)]
    for name, leaf in sorted(flatten(states, lambda x: x).items()):
        value = host(leaf)
        for i, h in enumerate(hashes):
            _add(h, name, value[i : i + 1])
    return [h.hexdigest() for h in hashes]


def _add(h, name, value):
    h.update(f"{name} {value.dtype} {value.shape}\n".encode())
    h.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)


class Checkpoints:
    """The checkpoints of one run or group. Use as a context manager: leaving it waits for the last save."""

    def __init__(self, path):
        self.path = Path(path).absolute()
        self._pool = ThreadPoolExecutor(1)
        self._saving, self._saved, self._left = None, -1, threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.wait()
        finally:
            self._left.set()
            self._pool.shutdown()

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, good or not, newest first."""
        names = [p.name for p in self.path.glob("*") if p.is_dir()]
        return sorted((int(n) for n in names if n.isdecimal()), reverse=True)

    def save(self, step: int, state: dict, best: dict, meta: dict, plain=False):
        """Write flattened trees in the background, each process its share; an error of the save before this one is raised here. plain: as NumPy's
        .npz, which for many small trees takes a thirtieth of the time."""
        self.wait()
        if step > self._saved:
            self._saved, trees = step, {name: tree for name, tree in dict(state=state, best=best).items() if tree}
            write = self._write if jax.process_count() == 1 else self._write_share
            self._saving = self._pool.submit(write, step, trees, meta, plain)

    def wait(self):
        """Return when nothing is being written any more; raises what the writing raised."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _write(self, step, trees, meta, plain):
        part = self.path / f"{step}.saving"
        if (self.path / str(step)).exists():
            return
        try:
            part.mkdir(parents=True)
            check_room(part, map(_bytes, trees.values()))
            (_write_npz if plain else _write_orbax)(part, trees)
            self._publish(step, meta | dict(files=_files(part)))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # room for what comes next
            raise

    def _write_share(self, step, trees, meta, _):
        """One of several processes' share. The first waits for the others', which say what they have written in <process>.json."""
        part, me, count = self.path / f"{step}.saving", jax.process_index(), jax.process_count()
        if (self.path / str(step)).exists():
            return
        part.mkdir(parents=True, exist_ok=True)
        pieces = {name: {f"{k}|{_said(b)}": x for k, v in tree.items() for b, x in v.parts.items()} for name, tree in trees.items()}
        check_room(part, map(_bytes, pieces.values()))
        mine = {f"{name}.{me}": tree for name, tree in pieces.items() if tree}
        _write_npz(part, mine)
        stored.write(part / f"{me}.json", {f"{name}.npz": file_sha256(part / f"{name}.npz") for name in mine}, "share")
        if me > 0:
            return
        said = [part / f"{i}.json" for i in range(count)]
        while not all(path.exists() for path in said):
            if self._left.wait(0.05):  # another process has ended, and this one is about to: there will be no such checkpoint
                return
        files = {name: value for path in said for name, value in stored.read(path, "share").items()}
        for path in said:
            path.unlink()
        shapes = {name: {k: v.shape for k, v in tree.items()} for name, tree in trees.items()}
        self._publish(step, meta | dict(files=dict(sorted(files.items())), shapes=shapes))

    def _publish(self, step, meta):
        """What was written becomes a checkpoint, and older ones go."""
        part = self.path / f"{step}.saving"
        stored.write(part / "meta.json", meta | dict(step=step))
        part.rename(self.path / str(step))
        self._delete_old()

    def _delete_old(self):
        for old in self.steps()[KEEP:] if first() else ():
            shutil.rmtree((self.path / str(old)).rename(self.path / f"{old}.deleted"))

    def tidy(self):
        """Remove what killed processes left half done."""
        for path in self.path.glob("*") if first() else ():
            if path.suffix in (".saving", ".deleted"):
                shutil.rmtree(path, ignore_errors=True)

    def read(self, step: int, wanted: Callable | None = None) -> tuple[dict, dict, dict]:
        """(state, best, meta) of one checkpoint, verified. Raises a UserError that says what is wrong with it.

        wanted: (name of a leaf, its shape) -> the bounds of its pieces that are wanted, of which leaves then consist; else they are whole.
        """
        path = self.path / str(step)
        meta = stored.read(path / "meta.json")
        require(meta is not None, f"checkpoint {path} is damaged: it has no meta.json")
        require(meta["step"] == step, f"checkpoint {path} is damaged: its meta.json is of step {meta['step']}")
        files = _files(path)
        for name in meta["files"].keys() | files.keys():
            require(meta["files"].get(name) == files.get(name), f"checkpoint {path} is damaged: {name} does not match its hash")
        read = _read_npz if (path / "state.npz").is_file() else _read_orbax
        if "shapes" in meta:
            read = lambda path, name: _read_shares(path, name, meta["shapes"].get(name, {}), wanted)
        return *(read(path, name) for name in ("state", "best")), meta

    def newest(self, report, wanted: Callable | None = None) -> tuple[dict, dict, dict] | None:
        """The newest good checkpoint, or None where there is none; each damaged one is reported in one sentence.

        A run beside may delete older checkpoints while they are read: then the newest is looked for again.
        """
        damaged = {}
        while True:
            steps = [step for step in self.steps() if step not in damaged]
            if not steps:
                return None
            try:
                return self.read(steps[0], wanted)
            except Exception as e:  # Orbax raises whatever it likes where files vanish
                if not (self.path / str(steps[0])).is_dir():
                    continue
                if not isinstance(e, UserError) or isinstance(e, FormatError):
                    raise
                damaged[steps[0]] = e
                report(f"{e}; going back to the one before it")

    def set_aside(self, newer_than: int):
        """Rename damaged checkpoints that the run will write again, and delete those that a killed process left."""
        for step in self.steps() if first() else ():
            if step > newer_than:
                shutil.rmtree(self.path / f"{step}.damaged", ignore_errors=True)
                (self.path / str(step)).rename(self.path / f"{step}.damaged")
        self._delete_old()


def _orbax():
    """Orbax of this process alone: of several, one writes and each reads by itself."""
    alone = dict(primary_host=jax.process_index(), active_processes={jax.process_index()}) if jax.process_count() > 1 else {}
    options = ocp.options.MultiprocessingOptions(**alone)
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options)


def _write_orbax(folder: Path, trees: dict):
    with _quiet(), _orbax() as writer:
        for name, tree in trees.items():
            writer.save(folder / name, tree)
            (folder / name / "commit_success.txt").write_text("committed\n")  # Orbax wrote the path


def _read_orbax(folder: Path, name: str) -> dict:
    if not (folder / name).is_dir():
        return {}
    with _quiet(), _orbax() as reader:
        return dict(reader.restore(folder / name))


def _said(bounds) -> str:
    return ",".join(f"{low}:{high}" for low, high in bounds)


def _read_shares(folder: Path, name: str, shapes: dict, wanted: Callable | None) -> dict:
    """A tree whose pieces lie in several shares, of which no more than an array is in memory beside what is wanted."""
    whole = lambda shape: tuple((0, n) for n in shape)
    out = {k: Pieces(shape, np.uint8, dict.fromkeys(map(tuple, wanted(k, shape) if wanted else [whole(shape)]))) for k, shape in shapes.items()}
    for share in sorted(folder.glob(f"{name}.*.npz")):
        for key, read in _members(share):
            k, _, said = key.rpartition("|")
            there = tuple(tuple(map(int, axis.split(":"))) for axis in said.split(",") if axis)
            met = [(bounds, common) for bounds in out[k].parts if (common := _common(bounds, there)) is not None]
            x = read() if met else None
            for bounds, common in met:
                if out[k].parts[bounds] is None:
                    out[k].dtype, out[k].parts[bounds] = x.dtype, np.empty([b - a for a, b in bounds], x.dtype)
                at = lambda begun, common=common: tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(common, begun, strict=True))
                out[k].parts[bounds][at(bounds)] = x[at(there)]
    return out if wanted else {k: pieces.parts[whole(shapes[k])] for k, pieces in out.items()}


def _common(one, other):
    """The bounds of what two parts of an array share, or None."""
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return both if all(a < b for a, b in both) else None


BFLOAT16 = "#bfloat16"  # ends the names of what NumPy's files have no type for, and is kept as its bits


def _bytes(tree: dict) -> int:
    return sum(x.nbytes for x in tree.values())


def _write_npz(folder: Path, trees: dict):
    bits = lambda name, x: (name + BFLOAT16, x.view(np.uint16)) if x.dtype == jnp.bfloat16 else (name, x)
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
            yield whole, (lambda name=name, wide=whole == name: file[name] if wide else file[name].view(jnp.bfloat16))


def _read_npz(folder: Path, name: str) -> dict:
    path = folder / f"{name}.npz"
    return {k: read() for k, read in _members(path)} if path.is_file() else {}


def _files(path: Path) -> dict[str, str]:
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

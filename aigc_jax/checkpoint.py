"""Checkpoints: Orbax files with a hash, newest two kept, damage noticed and reported. Nothing else in the project sees Orbax.

CHECKPOINTS/<step>/ holds `state` (stacked TrainStates), `best` (each trial's best so far, without its optimiser state;
absent where the config names no metric) and `meta` (JSON: step, hash, and what the loop adds). Orbax writes to a temporary
directory and renames it, so that a killed process leaves older checkpoints whole. The hash is of paths, types, shapes and
bytes of every leaf and of meta, since Orbax itself restores flipped bits without a word.
"""

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from aigc_jax.core import path_of
from aigc_jax.errors import UserError, require

KEEP = 2


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flatten(tree) -> dict[str, np.ndarray]:
    """{path: a copy of the leaf on the host}; keys as their raw words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(p): np.array(jax.random.key_data(x) if _is_key(x) else x) for p, x in leaves}


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


def digest(flat: dict[str, np.ndarray], meta: dict | None = None) -> str:
    """SHA-256 of path, dtype, shape and bytes of every leaf, and of the metadata."""
    h = hashlib.sha256(json.dumps(meta or {}, sort_keys=True).encode())
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

    def save(self, step: int, state: dict, best: dict, meta: dict):
        """Write flattened trees in the background; an error of the save before this one is raised here."""
        self.wait()
        self._saving = self._pool.submit(self._write, step, state, best, meta)

    def wait(self):
        """Return when nothing is being written any more; raises what the writing raised."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _write(self, step, state, best, meta):
        target = self.path / str(step)
        if target.exists():
            return
        meta = meta | dict(step=step)
        meta["hash"] = digest(_joined(state, best), meta)
        items = dict(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta))
        if best:
            items["best"] = ocp.args.PyTreeSave(best)
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
                writer.save(target, ocp.args.Composite(**items))
        except Exception:
            self.tidy()  # room for what comes next
            raise
        for old in self.steps()[KEEP:]:
            shutil.rmtree((self.path / str(old)).rename(self.path / f"{old}.deleted"))

    def tidy(self):
        """Remove what killed or failed processes left half done."""
        for path in self.path.glob("*"):
            if path.suffix == ".deleted" or ".orbax-checkpoint-tmp" in path.name:
                shutil.rmtree(path, ignore_errors=True)

    def read(self, step: int) -> tuple[dict, dict, dict]:
        """(state, best, meta) of one checkpoint, verified. Raises a UserError that says what is wrong with it."""
        path = self.path / str(step)
        args = dict(state=ocp.args.PyTreeRestore(), meta=ocp.args.JsonRestore())
        if (path / "best").is_dir():
            args["best"] = ocp.args.PyTreeRestore()
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                items = reader.restore(path, ocp.args.Composite(**args))
            state, best, meta = dict(items["state"]), dict(items.get("best") or {}), dict(items["meta"])
            given = meta.pop("hash")
            good = meta["step"] == step and digest(_joined(state, best), meta) == given
        except Exception as e:  # damage shows as any of a dozen exceptions of Orbax, TensorStore, json and NumPy
            reason = str(e).strip().splitlines() or [type(e).__name__]
            raise UserError(f"checkpoint {path} is damaged: {reason[0][:160]}") from None
        require(good, f"checkpoint {path} is damaged: its contents do not match its hash")
        return state, best, meta | dict(hash=given)

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
        for step in self.steps():
            if step > newer_than:
                shutil.rmtree(self.path / f"{step}.damaged", ignore_errors=True)
                (self.path / str(step)).rename(self.path / f"{step}.damaged")


def _joined(state, best):
    return {f"state/{k}": v for k, v in state.items()} | {f"best/{k}": v for k, v in best.items()}

"""Checkpoints: Orbax trees with a hash; the newest two are retained, and damage is
detected and reported. Only `serialization` imports Orbax.

CHECKPOINTS/<step>/ holds `state` (stacked TrainStates), `best` (each trial's best so
far, without its optimiser state; absent where the config names no metric) and
`meta.json`: the step, the loop's metadata, the SHA-256 of every file, and a hash of all
this. A checkpoint is written as <step>.saving and renamed when complete, so that a
killed process leaves older checkpoints intact. All files are verified before Orbax
reads them, since Orbax restores flipped bits without an error. The exported checkpoint
of a trial of a group has state.npz and best.npz in place of Orbax's directories.

With several processes, each process writes the shards on its own devices, to
state.0.npz, state.1.npz and so on, with array names NAME|START:STOP,... , and reads the
slices that its devices need. Training thus resumes with any number of processes.
"""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aigc_jax.core.distributed import LocalShards, is_primary
from aigc_jax.training.serialization import (
    count_bytes,
    digest_files,
    format_bounds,
    read_npz,
    read_orbax,
    read_shards,
    write_npz,
    write_orbax,
)
from aigc_jax.utils import documents
from aigc_jax.utils.disk import check_disk_space, file_sha256
from aigc_jax.utils.errors import FormatError, UserError, require

KEEP = 2


class Checkpoints:
    """The checkpoints of one run or group; a context manager whose exit waits for the
    last save.

    Args:
      path: the directory, which gets one subdirectory per step.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._pool = ThreadPoolExecutor(1)
        self._saving: Future | None = None
        self._saved, self._left = -1, threading.Event()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        try:
            if kind is None:
                self.wait_until_finished()
        finally:
            self._left.set()
            self._pool.shutdown()

    def list_steps(self) -> list[int]:  # of finished checkpoints, newest first
        """Return the steps with a finished checkpoint, valid or not, newest first."""
        names = [p.name for p in self.path.glob("*") if p.is_dir()]
        return sorted((int(n) for n in names if n.isdecimal()), reverse=True)

    def save(
        self,
        step: int,
        state: Mapping[str, np.ndarray | LocalShards],
        best: Mapping[str, np.ndarray | LocalShards],
        meta: dict[str, Any],
        as_npz: bool = False,
    ) -> None:  # begins a save in the background; `wait_until_finished` ends it
        """Write flattened trees in the background, each process its own shards. Errors
        of the previous save are raised here.

        Args:
          step: the checkpoint's step; nothing is written unless it is past the last
            saved step.
          state: {path: array} of the stacked states.
          best: the same of the best states so far, {} without any.
          meta: further contents of meta.json.
          as_npz: write NumPy's .npz, a thirtieth of the time for many small trees.
        """
        self.wait_until_finished()
        if step > self._saved:
            self._saved, trees = (
                step,
                {name: tree for name, tree in dict(state=state, best=best).items() if tree},
            )
            write = self._write if jax.process_count() == 1 else self._write_share
            self._saving = self._pool.submit(write, step, trees, meta, as_npz)

    def wait_until_finished(self) -> None:
        """Wait for the pending save, and raise its error if it failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _write(
        self, step: int, trees: Mapping[str, Mapping[str, Any]], meta: dict, as_npz: bool
    ) -> None:
        part = self.path / f"{step}.saving"
        if (self.path / str(step)).exists():
            return
        try:
            part.mkdir(parents=True)
            check_disk_space(part, map(count_bytes, trees.values()))
            (write_npz if as_npz else write_orbax)(part, trees)
            self._publish(step, meta | dict(files=digest_files(part)))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # free its disk space
            raise

    def _write_share(
        self, step: int, trees: Mapping[str, Mapping[str, Any]], meta: dict, _: bool
    ) -> None:
        """Write the shards of one of several processes, and their digests to
        <process>.json; process 0 waits for these files and publishes the checkpoint.
        """
        part, rank, count = self.path / f"{step}.saving", jax.process_index(), jax.process_count()
        if (self.path / str(step)).exists():
            return
        part.mkdir(parents=True, exist_ok=True)
        pieces = {
            name: {
                f"{k}|{format_bounds(b)}": x for k, v in tree.items() for b, x in v.parts.items()
            }
            for name, tree in trees.items()
        }
        check_disk_space(part, map(count_bytes, pieces.values()))
        local_trees = {f"{name}.{rank}": tree for name, tree in pieces.items() if tree}
        write_npz(part, local_trees)
        documents.write(
            part / f"{rank}.json",
            {f"{name}.npz": file_sha256(part / f"{name}.npz") for name in local_trees},
            "share",
        )
        if rank > 0:
            return
        digest_files = [part / f"{i}.json" for i in range(count)]
        while not all(path.exists() for path in digest_files):
            # Another process has ended and this one is about to: no file will follow.
            if self._left.wait(0.05):
                return
        digests = [documents.read(path, "share") for path in digest_files]
        files = {name: value for one in digests if one is not None for name, value in one.items()}
        for path in digest_files:
            path.unlink()
        shapes = {name: {k: v.shape for k, v in tree.items()} for name, tree in trees.items()}
        self._publish(step, meta | dict(files=dict(sorted(files.items())), shapes=shapes))

    def _publish(self, step: int, meta: dict[str, Any]) -> None:
        """Write meta.json, rename the directory to its step, and delete old ones."""
        part = self.path / f"{step}.saving"
        documents.write(part / "meta.json", meta | dict(step=step))
        part.rename(self.path / str(step))
        self._delete_old()

    def _delete_old(self) -> None:  # all but the newest KEEP
        """Delete all checkpoints but the newest KEEP."""
        for old in self.list_steps()[KEEP:] if is_primary() else ():
            shutil.rmtree((self.path / str(old)).rename(self.path / f"{old}.deleted"))

    def remove_incomplete(self) -> None:  # what killed processes left
        """Remove incomplete directories of killed processes."""
        for path in self.path.glob("*") if is_primary() else ():
            if path.suffix in (".saving", ".deleted"):
                shutil.rmtree(path, ignore_errors=True)

    def read_verified(
        self,
        step: int,
        slices: Callable[[str, Sequence[int]], list[tuple]] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:  # -> state, best, meta
        """Verify one checkpoint and return its (state, best, meta).

        Args:
          step: the checkpoint's step.
          slices: (name of a leaf, its shape) -> bounds of the slices to read from a
            checkpoint of several processes, whose leaves are then `LocalShards`.
            Without it, and in checkpoints of one process, leaves are complete arrays.

        Raises:
          UserError: the checkpoint is damaged; the error message names the damage.
        """
        path = self.path / str(step)
        meta = documents.read(path / "meta.json")
        if meta is None:
            raise UserError(f"checkpoint {path} is damaged: it has no meta.json")
        require(
            meta["step"] == step,
            f"checkpoint {path} is damaged: its meta.json is of step {meta['step']}",
        )
        files = digest_files(path)
        for name in meta["files"].keys() | files.keys():
            require(
                meta["files"].get(name) == files.get(name),
                f"checkpoint {path} is damaged: {name} does not match its hash",
            )
        read: Callable[[Path, str], dict]
        read = read_npz if (path / "state.npz").is_file() else read_orbax
        if "shapes" in meta:
            read = lambda path, name: read_shards(path, name, meta["shapes"].get(name, {}), slices)
        return read(path, "state"), read(path, "best"), meta

    def read_newest_valid(
        self,
        report: Callable[[str], None],
        slices: Callable[[str, Sequence[int]], list[tuple]] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]] | None:  # state, best, meta
        """Return (state, best, meta) of the newest valid checkpoint, or None without
        one.

        A concurrent run may delete older checkpoints while they are read: the search
        then begins again.

        Args:
          report: called with an error message for each damaged checkpoint.
          slices: as in `read_verified`.

        Raises:
          FormatError: a checkpoint is of another format version.
        """
        damaged = {}
        while True:
            steps = [step for step in self.list_steps() if step not in damaged]
            if not steps:
                return None
            try:
                return self.read_verified(steps[0], slices)
            except Exception as e:  # Orbax raises arbitrary types where files vanish
                if not (self.path / str(steps[0])).is_dir():
                    continue
                if not isinstance(e, UserError) or isinstance(e, FormatError):
                    raise
                damaged[steps[0]] = e
                report(f"{e}; using the previous checkpoint")

    def quarantine(self, newer_than: int) -> None:  # renames to <step>.damaged
        """Rename the checkpoints after step `newer_than`, which are damaged and will be
        written again, and delete old ones that a killed process left.
        """
        for step in self.list_steps() if is_primary() else ():
            if step > newer_than:
                shutil.rmtree(self.path / f"{step}.damaged", ignore_errors=True)
                (self.path / str(step)).rename(self.path / f"{step}.damaged")
        self._delete_old()

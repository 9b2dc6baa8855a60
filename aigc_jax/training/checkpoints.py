"""Checkpoints: Orbax trees with a hash, newest two kept, damage noticed and reported.
Nothing else in the project sees Orbax.

CHECKPOINTS/<step>/ holds `state` (stacked TrainStates), `best` (each trial's best so
far, without its optimiser state; absent where the config names no metric) and
`meta.json`: the step, what the loop adds, the SHA-256 of every file, and a hash of all
this. It is written as <step>.saving and renamed when it is whole, so that a killed
process leaves older ones as they were; and it is verified before Orbax sees a byte of
it, since Orbax restores flipped bits without a word. What a trial of a group is left
with is state.npz and best.npz in place of Orbax's directories.

Of several processes each writes what lies on its own devices, state.0.npz, state.1.npz
and so on, whose arrays are called NAME|START:STOP,... , and reads what its devices will
hold: any number of processes goes on with what any other left.
"""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax

from aigc_jax.core.distributed import first
from aigc_jax.training.serialization import (
    count_bytes,
    file_digests,
    format_bounds,
    read_npz,
    read_orbax,
    read_shares,
    write_npz,
    write_orbax,
)
from aigc_jax.utils import documents
from aigc_jax.utils.disk import check_room, file_sha256
from aigc_jax.utils.errors import FormatError, UserError, require

KEEP = 2


class Checkpoints:
    """The checkpoints of one run or group. Use as a context manager: leaving it waits
    for the last save.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._pool = ThreadPoolExecutor(1)
        self._saving: Future | None = None
        self._saved, self._left = -1, threading.Event()

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

    def save(self, step: int, state: dict, best: dict, meta: dict, plain: bool = False) -> None:
        """Write flattened trees in the background, each process its share; an error of
        the save before this one is raised here. plain: as NumPy's .npz, which for many
        small trees takes a thirtieth of the time.
        """
        self.wait()
        if step > self._saved:
            self._saved, trees = (
                step,
                {name: tree for name, tree in dict(state=state, best=best).items() if tree},
            )
            write = self._write if jax.process_count() == 1 else self._write_share
            self._saving = self._pool.submit(write, step, trees, meta, plain)

    def wait(self) -> None:
        """Return when nothing is being written any more, or raise what went wrong."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def _write(self, step, trees, meta, plain):
        part = self.path / f"{step}.saving"
        if (self.path / str(step)).exists():
            return
        try:
            part.mkdir(parents=True)
            check_room(part, map(count_bytes, trees.values()))
            (write_npz if plain else write_orbax)(part, trees)
            self._publish(step, meta | dict(files=file_digests(part)))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # room for what comes next
            raise

    def _write_share(self, step, trees, meta, _):
        """One of several processes' share. The first waits for the others', which say
        what they have written in <process>.json.
        """
        part, me, count = self.path / f"{step}.saving", jax.process_index(), jax.process_count()
        if (self.path / str(step)).exists():
            return
        part.mkdir(parents=True, exist_ok=True)
        pieces = {
            name: {
                f"{k}|{format_bounds(b)}": x for k, v in tree.items() for b, x in v.parts.items()
            }
            for name, tree in trees.items()
        }
        check_room(part, map(count_bytes, pieces.values()))
        mine = {f"{name}.{me}": tree for name, tree in pieces.items() if tree}
        write_npz(part, mine)
        documents.write(
            part / f"{me}.json",
            {f"{name}.npz": file_sha256(part / f"{name}.npz") for name in mine},
            "share",
        )
        if me > 0:
            return
        said = [part / f"{i}.json" for i in range(count)]
        while not all(path.exists() for path in said):
            # Another process has ended and this one is about to: none will be written.
            if self._left.wait(0.05):
                return
        found = [documents.read(path, "share") for path in said]
        files = {name: value for one in found if one is not None for name, value in one.items()}
        for path in said:
            path.unlink()
        shapes = {name: {k: v.shape for k, v in tree.items()} for name, tree in trees.items()}
        self._publish(step, meta | dict(files=dict(sorted(files.items())), shapes=shapes))

    def _publish(self, step, meta):
        """What was written becomes a checkpoint, and older ones go."""
        part = self.path / f"{step}.saving"
        documents.write(part / "meta.json", meta | dict(step=step))
        part.rename(self.path / str(step))
        self._delete_old()

    def _delete_old(self):
        for old in self.steps()[KEEP:] if first() else ():
            shutil.rmtree((self.path / str(old)).rename(self.path / f"{old}.deleted"))

    def tidy(self) -> None:
        """Remove what killed processes left half done."""
        for path in self.path.glob("*") if first() else ():
            if path.suffix in (".saving", ".deleted"):
                shutil.rmtree(path, ignore_errors=True)

    def read(self, step: int, wanted: Callable | None = None) -> tuple[dict, dict, dict]:
        """(state, best, meta) of one checkpoint, verified. Raises a UserError that says
        what is wrong with it.

        wanted: (name of a leaf, its shape) -> the bounds of its pieces that are wanted,
        of which leaves then consist; else they are whole.
        """
        path = self.path / str(step)
        meta = documents.read(path / "meta.json")
        if meta is None:
            raise UserError(f"checkpoint {path} is damaged: it has no meta.json")
        require(
            meta["step"] == step,
            f"checkpoint {path} is damaged: its meta.json is of step {meta['step']}",
        )
        files = file_digests(path)
        for name in meta["files"].keys() | files.keys():
            require(
                meta["files"].get(name) == files.get(name),
                f"checkpoint {path} is damaged: {name} does not match its hash",
            )
        read: Callable[[Path, str], dict]
        read = read_npz if (path / "state.npz").is_file() else read_orbax
        if "shapes" in meta:
            read = lambda path, name: read_shares(path, name, meta["shapes"].get(name, {}), wanted)
        return read(path, "state"), read(path, "best"), meta

    def newest(
        self, report: Callable[[str], None], wanted: Callable | None = None
    ) -> tuple[dict, dict, dict] | None:
        """The newest good checkpoint, or None where there is none; each damaged one is
        reported in one sentence.

        A run beside may delete older checkpoints while they are read: then the newest
        is looked for again.
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

    def set_aside(self, newer_than: int) -> None:
        """Rename damaged checkpoints that the run will write again, and delete those
        that a killed process left.
        """
        for step in self.steps() if first() else ():
            if step > newer_than:
                shutil.rmtree(self.path / f"{step}.damaged", ignore_errors=True)
                (self.path / str(step)).rename(self.path / f"{step}.damaged")
        self._delete_old()

"""The directory of a run, except its checkpoints: its rows, its status, its lock."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from io import BufferedWriter
from pathlib import Path
from typing import Any, TextIO

from aigc_jax.utils import documents
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.files import require_local_path, suggest_sibling
from aigc_jax.utils.locks import LOCK, is_held, lock_new_file

INTERRUPTED = "interrupted"  # by the end of its process: the same command resumes it
RESUMABLE = (INTERRUPTED, "preempted")
DAMAGED = "failed: damaged"  # of a trial whose config or rows cannot be read
RUN_FOLDERS = ("checkpoints", "samples", "sampled", "tensorboard", "wandb", "assets")
RUN_FILES = (
    "config.json",
    "STATUS.json",
    "environment.json",
    "curves.png",
    "report.html",
    "metrics.csv",
    "rows.jsonl",
    "timings.jsonl",
    "evaluations.jsonl",
)


def read_row_digests(checkpoints: Path) -> list[dict[str, Any]]:  # [N] of {"bytes", "sha256"}
    """Return {"bytes": length, "sha256": digest} of each trial's rows at the newest
    checkpoint; [] without a checkpoint.
    """
    folders = [p for p in checkpoints.glob("*") if p.name.isdecimal()]
    for folder in sorted(folders, key=lambda p: int(p.name), reverse=True):
        if meta := documents.peek(folder / "meta.json"):
            return meta["rows"]
    return []


class RunDir:
    """The work directory of one trial."""

    def __init__(self, path: str | Path) -> None:
        require_local_path(path)
        self.path = Path(path)
        self._rows: BufferedWriter | None = None
        self._lock: TextIO | None = None
        self._made: list[Path] = []  # directories that `make_and_lock` made, the lowest first

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def make_and_lock(self) -> None:
        """Make the directory and lock it; raise a UserError where another process holds
        the lock.
        """
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        with convert_disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_new_file(self / LOCK)
        require(self._lock, f"another process is training in {self.path}")

    def close(self) -> None:
        """Close the rows and release the lock. Of a run that was refused before it
        began, the lock and the directories that it made are removed.
        """
        if self._lock and not (self / "config.json").exists():
            with contextlib.suppress(OSError):  # what is not empty remains
                (self / LOCK).unlink(missing_ok=True)
                (self / "checkpoints").rmdir()
            with contextlib.suppress(OSError):
                for folder in self._made:
                    folder.rmdir()
        for file in (self._rows, self._lock):
            if file:
                file.close()
        self._rows = self._lock = None

    def read_json(self, name: str) -> dict[str, Any] | None:  # None: no such file
        """Return the contents of a JSON document, None where it does not exist; raise a
        UserError where it is damaged.
        """
        return documents.read(self / name)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON document, replacing an existing one."""
        documents.write(self / name, value)

    def read_status(self) -> dict[str, Any]:  # {}: missing or damaged
        """Return the contents of STATUS.json; {} where the file is missing or damaged,
        since training writes it again.
        """
        return documents.peek(self / "STATUS.json") or {}

    def read_config_json(self) -> dict[str, Any]:
        """Return the contents of config.json; raise a UserError if it is missing."""
        config = self.read_json("config.json")
        if config is None:
            near = "" if self.path.exists() else suggest_sibling(self.path)
            raise UserError(f"{self.path} is not a run directory: config.json is missing{near}")
        return config

    def describe_status(self) -> str:
        """Return the status, or a description without one: "waiting" before a run,
        "interrupted" of a run that no process of this host trains any more.
        """
        status = self.read_status().get("status")
        if status == "running" and not is_held(self / LOCK):
            return INTERRUPTED
        if status is None:
            has_begun = (self / "config.json").exists()
            status = "without a readable STATUS.json" if has_begun else "waiting"
        return status

    def describe_step(self, rows: Sequence[dict[str, Any]]) -> str:  # "at step 8 of 16"
        """Return the step of the last of its rows, and the steps of the complete run,
        if they are known.
        """
        steps = (documents.peek(self / "config.json") or {}).get("config", {}).get("steps")
        step = f"at step {rows[-1]['step'] if rows else 0:,}"
        return f"{step} of {steps:,}" if isinstance(steps, int) else step

    def write_status(self, status: str, step: int, **more: Any) -> None:
        """Write STATUS.json: a status, its step, and further values."""
        self.write_json("STATUS.json", dict(status=status, step=step, **more))

    def read_rows(self) -> list[dict[str, Any]]:
        """Return all rows. Raise a UserError where the rows up to the newest checkpoint
        have changed since it was saved.
        """
        while True:
            saved = self._read_saved_digest()
            try:
                self.verify_rows(saved)
                return documents.read_lines(self / "rows.jsonl")
            except UserError:
                if saved == self._read_saved_digest():
                    raise  # else a resuming run has cut the rows: read again

    def _read_saved_digest(self) -> dict[str, Any] | None:  # {"bytes", "sha256"}
        """Return the length and SHA-256 of the rows at the newest checkpoint, or at the
        value that was not finite.
        """
        rows = read_row_digests(self / "checkpoints")
        return rows[0] if rows else self.read_status().get("rows")

    def verify_rows(self, saved_digest: dict[str, Any] | None) -> None:
        """Raise a UserError unless rows.jsonl begins with the rows of a checkpoint.

        Args:
          saved_digest: {"bytes": length, "sha256": digest} of these rows; None allows
            any.
        """
        path = self / "rows.jsonl"
        if not saved_digest or not saved_digest["bytes"]:
            return
        raw, remedy = documents.read_bytes(path), documents.find_remedy(path)
        if raw is None:
            missing = path if self.path.exists() else self.path
            raise UserError(
                f"{missing} is missing, which had rows at the last checkpoint; {remedy}"
            )
        require(
            len(raw) >= saved_digest["bytes"],
            f"{path} is damaged: the file has {len(raw):,} of the {saved_digest['bytes']:,} "
            f"bytes of rows of the last checkpoint; {remedy}",
        )
        require(
            hashlib.sha256(raw[: saved_digest["bytes"]]).hexdigest() == saved_digest["sha256"],
            f"{path} is damaged: rows were changed since the last checkpoint; {remedy}",
        )

    def append_row(self, row: dict[str, Any]) -> None:
        """Add a row; `sync_rows` makes it durable."""
        rows, line = self._open_rows(), documents.encode_line(row)
        rows.write(line)
        self._digest.update(line)
        self._length += len(line)

    def _open_rows(self) -> BufferedWriter:
        """Open rows.jsonl for appending, and digest its existing rows, at the first
        call.
        """
        if self._rows is None:
            before = documents.read_bytes(self / "rows.jsonl") or b""
            self._digest, self._length = hashlib.sha256(before), len(before)
            self._rows = open(self / "rows.jsonl", "ab")
        return self._rows

    def digest_rows(self) -> dict[str, Any]:  # {"bytes": length, "sha256": digest}
        """Return {"bytes": length, "sha256": digest} of all written rows, for
        checkpoint metadata.
        """
        self._open_rows()
        return dict(bytes=self._length, sha256=self._digest.hexdigest())

    def sync_rows(self) -> None:
        """Flush the rows to the disk."""
        if self._rows:
            self._rows.flush()
            os.fsync(self._rows.fileno())

    def truncate_after(
        self, step: int, saved_digest: dict[str, Any] | None
    ) -> None:  # None: deletes all rows
        """Delete the rows past a checkpoint of step `step`.

        Args:
          step: the last step of the timings that remain.
          saved_digest: {"bytes": length, "sha256": digest} of the rows that remain;
            None deletes all rows.
        """
        if (self / "rows.jsonl").exists():
            os.truncate(self / "rows.jsonl", saved_digest["bytes"] if saved_digest else 0)
        if (self / "timings.jsonl").exists():
            rows = documents.read_lines(self / "timings.jsonl", skip_invalid=True)
            remaining = [row for row in rows if row["step"] <= step]
            documents.write_atomically(
                self / "timings.jsonl", b"".join(map(documents.encode_line, remaining))
            )

    def clear(self) -> None:  # deletes the files of a run, not the directory
        """Remove the files of a run, to begin again; other files remain."""
        for name in RUN_FOLDERS:
            shutil.rmtree(self / name, ignore_errors=True)
        for name in RUN_FILES:
            (self / name).unlink(missing_ok=True)

    def append_timing(self, **values: Any) -> None:
        """Append a row to timings.jsonl."""
        documents.append_line(self / "timings.jsonl", values)

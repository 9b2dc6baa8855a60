"""What a run leaves on disk, but for its checkpoints: the run directory, its rows, its status, its lock."""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from aigc_jax import stored
from aigc_jax.errors import UserError, require


@contextlib.contextmanager
def disk_errors(path):
    """Operating-system errors on the work directory as sentences; a full disk and a limit by name."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:
        if fault := disk_fault(e, path):
            raise UserError(f"{fault} and run the same command again") from e
        if isinstance(e, OSError):
            raise UserError(f"cannot write to {path}: {e.strerror or e}") from e
        raise


def disk_fault(error: BaseException, path) -> str:
    """Why nothing more can be written, and what to do, or ''. Orbax says it in the text of other errors."""
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "ENOSPC" in text:
        return f"the disk of {path} is full; nothing saved is lost: make room"
    if number == errno.EFBIG or "File too large" in text:
        return f"a file of {path} exceeds the limit of file sizes; nothing saved is lost: raise it (ulimit -f)"
    return ""


def describe_error(error: BaseException, path) -> str:
    """What is wrong with the disk, or the first line of any other error."""
    return disk_fault(error, path) or f"{type(error).__name__}: {error}".splitlines()[0]


def check_room(folder: Path, sizes):
    """An OSError where files of so many bytes cannot be written: Orbax floods the terminal when it finds out."""
    sizes, limit, error = list(sizes), resource.getrlimit(resource.RLIMIT_FSIZE)[0], 0
    if shutil.disk_usage(folder).free < 1.05 * sum(sizes) + 2**20:
        error = errno.ENOSPC
    elif limit != resource.RLIM_INFINITY and max(sizes, default=0) > limit:
        error = errno.EFBIG
    if error:
        raise OSError(error, os.strerror(error), str(folder.with_suffix("")))


def cache_dir(kind: str) -> Path:
    """Where this user's files of a kind lie that can be made again: below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aigc_jax" / kind


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def plain(value):
    """A float for JSON: the shortest decimal that gives a float32 back; None for NaN and infinity."""
    number = float(str(value)) if isinstance(value, np.float32) else float(value)
    return number if math.isfinite(number) else None


RUN_FOLDERS = ("checkpoints", "samples", "tensorboard", "assets")
RUN_FILES = ("config.json", "STATUS.json", "environment.json", "curves.png",
             "rows.jsonl", "timings.jsonl", "evaluations.jsonl")  # fmt: skip


class RunDir:
    """WORKDIR of one trial."""

    def __init__(self, path):
        self.path = Path(path)
        self._rows = self._lock = None

    def __truediv__(self, name) -> Path:
        return self.path / name

    def open(self):
        """Make the directory and take its lock; a second process is refused."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"another process is training in {self.path}") from None

    def close(self):
        for file in (self._rows, self._lock):
            if file:
                file.close()
        self._rows = self._lock = None

    def read_json(self, name) -> dict | None:
        """The contents of a JSON document, None where there is none; a damaged one raises a UserError."""
        return stored.read(self / name)

    def write_json(self, name, value):
        stored.write(self / name, value)

    def read_status(self) -> dict:
        """STATUS.json; {} where there is none, or a damaged one: training makes it anew."""
        return stored.peek(self / "STATUS.json") or {}

    def config(self) -> dict:
        """config.json; a UserError where this is no run."""
        found = self.read_json("config.json")
        require(found is not None, f"{self.path} is no run: it has no config.json")
        return found

    def known_status(self) -> str:
        """The status, or what is known without one: "waiting" of a run that has not begun."""
        status = self.read_status().get("status")
        if status is None:
            has_begun = (self / "config.json").exists()
            status = "without a readable STATUS.json" if has_begun else "waiting"
        return status

    def status(self, status: str, step: int, **more):
        self.write_json("STATUS.json", dict(status=status, step=step, **more))

    def rows(self) -> list[dict]:
        """All rows. Raises a UserError where rows up to the newest checkpoint are not those that were there."""
        while True:
            saved = self._saved_rows()
            try:
                self.check_rows(saved)
                return stored.read_lines(self / "rows.jsonl")
            except UserError:
                if saved == self._saved_rows():
                    raise  # else a run that resumes has cut them: look again

    def _saved_rows(self) -> dict | None:
        """Length and SHA-256 of the rows, as of the newest checkpoint, or of the value that was not finite."""
        folders = [p for p in (self / "checkpoints").glob("*") if p.name.isdecimal()]
        for folder in sorted(folders, key=lambda p: int(p.name), reverse=True):
            if meta := stored.peek(folder / "meta.json"):
                return meta["rows"][0]
        return self.read_status().get("rows")

    def check_rows(self, saved: dict | None):
        """Raise a UserError unless rows.jsonl begins with the rows of that length and SHA-256."""
        path = self / "rows.jsonl"
        if not saved or not saved["bytes"]:
            return
        raw = stored.read_bytes(path) or b""
        remedy = stored.FILES["rows.jsonl"].remedy
        require(len(raw) >= saved["bytes"], f"{path} is damaged: it has {len(raw):,} of the {saved['bytes']:,} "
                f"bytes of rows that were there at the last checkpoint; {remedy}")
        require(hashlib.sha256(raw[: saved["bytes"]]).hexdigest() == saved["sha256"],
                f"{path} is damaged: rows were changed since the last checkpoint; {remedy}")

    def append(self, row: dict):
        """Add a row; `sync` makes it durable."""
        self._open_rows()
        line = stored.encode_line(row)
        self._rows.write(line)
        self._digest.update(line)
        self._length += len(line)

    def _open_rows(self):
        if self._rows is None:
            before = stored.read_bytes(self / "rows.jsonl") or b""
            self._digest, self._length = hashlib.sha256(before), len(before)
            self._rows = open(self / "rows.jsonl", "ab")

    def written_rows(self) -> dict:
        """Length and SHA-256 of all rows that were written, for a checkpoint's metadata."""
        self._open_rows()
        return dict(bytes=self._length, sha256=self._digest.hexdigest())

    def sync(self):
        if self._rows:
            self._rows.flush()
            os.fsync(self._rows.fileno())

    def cut(self, step: int, saved: dict | None):
        """Drop the rows past a checkpoint, of which `saved` is the length and SHA-256; without one, all rows."""
        if (self / "rows.jsonl").exists():
            os.truncate(self / "rows.jsonl", saved["bytes"] if saved else 0)
        if (self / "timings.jsonl").exists():
            rows = stored.read_lines(self / "timings.jsonl", lenient=True)
            kept = [row for row in rows if row["step"] <= step]
            stored.write_atomically(self / "timings.jsonl", b"".join(map(stored.encode_line, kept)))

    def clear(self):
        """Remove what a run leaves, to begin again; files of others stay."""
        for name in RUN_FOLDERS:
            shutil.rmtree(self / name, ignore_errors=True)
        for name in RUN_FILES:
            (self / name).unlink(missing_ok=True)

    def timing(self, **values):
        stored.append_line(self / "timings.jsonl", values)


def origin(config_hash: str, checkpoint: str, step: int, seed: int) -> dict[str, str]:
    """What a generated file says of itself."""
    return dict(Software="generated by aigc_jax", config=config_hash, checkpoint=checkpoint, step=str(step), seed=str(seed))


def environment(repository: Path) -> dict:
    """Versions, devices, commit and command: no host name, no absolute path."""
    import jax

    script = Path(sys.argv[0]).resolve()
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")
    devices = jax.devices()

    def git(*words):
        done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except OSError:  # no git
        commit = ""
    return dict(
        versions={name: version(name) for name in names} | dict(python=platform.python_version()),
        platform=f"{platform.system()} {platform.machine()}",
        devices=[f"{len(devices)} x {devices[0].platform} {devices[0].device_kind}"],
        cores=os.cpu_count(),
        commit=commit,
        command=["python", *(hide_paths(word, repository) for word in (str(script), *sys.argv[1:]))],
    )


def hide_paths(word: str, repository: Path) -> str:
    """A word of a command line, where paths that lead out of the working directory are relative to
    the repository, or where they lie outside of it are their last part alone."""

    def shorten(part):
        if not part.startswith(("/", "~", "..")):
            return part
        path = Path(os.path.normpath(Path(part).expanduser().absolute()))
        return str(path.relative_to(repository)) if path.is_relative_to(repository) else path.name

    return "".join(shorten(part) for part in re.split(r"([=,:;'\"()\[\]\s]+)", word))


def table(rows: list[tuple], header: tuple) -> str:
    """A small table of text, numbers to four significant digits."""
    text = [tuple(f"{c:.4g}" if isinstance(c, float) else "-" if c is None else str(c) for c in r) for r in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))) for r in text]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])

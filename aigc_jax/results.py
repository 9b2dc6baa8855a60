"""What a run leaves on disk, but for its checkpoints: the run directory, its rows, its status, its lock."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from aigc_jax.errors import UserError, require


@contextlib.contextmanager
def disk_errors(path):
    """Operating-system errors on the work directory as sentences; a full disk by name."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:
        full = getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(e) or "ENOSPC" in str(e)
        if full:
            raise UserError(f"the disk of {path} is full; nothing saved is lost: make room and run the same command again") from e
        if isinstance(e, OSError):
            raise UserError(f"cannot write to {path}: {e.strerror or e}") from e
        raise


def cache_dir(kind: str) -> Path:
    """Where this user's files of a kind lie that can be made again: below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aigc_jax" / kind


def write_atomically(path: Path, text: str | bytes):
    """Write beside the file, then rename: whoever reads sees the old or the new, never a part."""
    part = path.with_name(path.name + ".part")
    data = text.encode() if isinstance(text, str) else text
    try:
        with open(part, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def plain(value):
    """A float for JSON: the shortest decimal that gives a float32 back; None for NaN and infinity."""
    number = float(str(value)) if isinstance(value, np.float32) else float(value)
    return number if math.isfinite(number) else None


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
        """The contents of a JSON file, None where there is none; a damaged one raises a UserError."""
        try:
            return json.loads((self / name).read_text())
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise UserError(f"{self.path} is no directory") from None
        except (ValueError, OSError) as e:
            raise UserError(f"{self / name} cannot be read: {e}") from None

    def write_json(self, name, value):
        write_atomically(self / name, json.dumps(value, indent=1) + "\n")

    def config(self) -> dict:
        """config.json; a UserError where this is no run."""
        stored = self.read_json("config.json")
        require(stored is not None, f"{self.path} is no run: it has no config.json")
        for key in ("config", "hash", "data", "spec"):
            require(isinstance(stored, dict) and key in stored, f"{self / 'config.json'} has no key {key}")
        return stored

    def status(self, status: str, step: int, **more):
        self.write_json("STATUS.json", dict(status=status, step=step, **more))

    def rows(self) -> list[dict]:
        return read_lines(self / "rows.jsonl")

    def append(self, row: dict):
        """Add a row; `sync` makes it durable."""
        if self._rows is None:
            self._rows = open(self / "rows.jsonl", "ab")
        self._rows.write((json.dumps(row) + "\n").encode())

    def sync(self):
        if self._rows:
            self._rows.flush()
            os.fsync(self._rows.fileno())

    def cut(self, step: int):
        """Drop the rows past a step, and a torn last line, by an atomic rewrite."""
        for name in ("rows.jsonl", "timings.jsonl"):
            if (self / name).exists():
                kept = [row for row in read_lines(self / name) if row["step"] <= step]
                write_atomically(self / name, "".join(json.dumps(row) + "\n" for row in kept))

    def timing(self, **values):
        with open(self / "timings.jsonl", "a") as f:
            f.write(json.dumps(values) + "\n")


def read_lines(path: Path) -> list[dict]:
    """The rows of a JSON-lines file; a torn last line is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    out = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn, or nothing
        try:
            out.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}: line {number} is no JSON; the file was changed by something else") from None
    return out


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

    def relative(word):
        key, equals, value = word.rpartition("=")
        return f"{key}{equals}{os.path.relpath(value, repository)}" if value.startswith("/") else word

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
        command=["python", os.path.relpath(script, repository) if script.is_relative_to(repository) else script.name, *map(relative, sys.argv[1:])],
    )


def table(rows: list[tuple], header: tuple) -> str:
    """A small table of text, numbers to four significant digits."""
    text = [tuple(f"{c:.4g}" if isinstance(c, float) else "-" if c is None else str(c) for c in r) for r in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))) for r in text]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])

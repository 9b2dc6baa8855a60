"""JSON documents and JSON-lines files of the package: declared shapes, format numbers
and digests.

A document is written as an object with two additional keys: `format`, a number that is
incremented when the meaning of a file changes, and `sha256`, the SHA-256 of all other
keys as canonical JSON. `read` verifies both, so that modified values are never used.
JSON-lines files (rows.jsonl and similar) are covered by the format of the config.json
in the same directory; a checkpoint's meta.json stores the length and the SHA-256 of the
rows up to its step. `document_shapes` checks shapes.
"""

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.utils.document_shapes import (
    DamageError,
    check_json_shape,
    parse_json_object,
    require_undamaged,
)
from aigc_jax.utils.errors import FormatError, UserError, format_command, mark_argument


class File(NamedTuple):
    """The declared shape of a kind of file, its format number, and the remedy that an
    error suggests where such a file is damaged.
    """

    shape: Any
    remedy: str
    format: int = 1


NUMBER = (float, None)  # NaN and infinity are stored as null
SCALAR = (float, None, str, bool)
BEST = ({"step": int, "value": NUMBER}, None)
FAILED = ({"step": int, "metric": str, "before?": {"step": int, ...: NUMBER}}, None)
ROWS = {"bytes": int, "sha256": str}

RESTORE = "restore it from a copy, or restart:"
COPY = (
    f"{RESTORE} {format_command('train', config='FILE', restart=True)}, "
    f"in a sweep {format_command('sweep', restart=True)}"
)
SWEEP_COPY = f"{RESTORE} {format_command('sweep ...', restart=True)}"
HARMLESS = "delete the file: aigc_jax rewrites it"

# File name, or kind of file where names are not constant -> its declaration.
FILES = {
    "config.json": File(
        {
            "identity_version": int,
            "hash": str,
            "source?": str,  # the config's file, for readers
            "changes": dict,
            "data": str,
            "spec": {"kind": str, "shape": [int], "n_train": int, ...: object},
            "splits?": {...: int},
            "config": dict,
            "tokenizer?": str,
        },
        COPY,
    ),
    "STATUS.json": File({"status": str, "step": int, ...: object}, HARMLESS),
    "environment.json": File({...: object}, HARMLESS),
    "rows.jsonl": File({"step": int, "split": str, ...: SCALAR}, COPY),
    "timings.jsonl": File(
        {"step": int, "seconds": float, "steps_per_s": float, ...: SCALAR}, HARMLESS
    ),
    "evaluations.jsonl": File({"step": int, "split": str, ...: SCALAR}, HARMLESS),
    "meta.json": File(
        {
            "step": int,
            "failed": [FAILED],
            "best": [BEST],
            "files": {...: str},
            "shapes?": {...: {...: [int]}},
            "rows": [ROWS],
        },
        "",  # `checkpoints` falls back to the previous one
    ),
    "share": File({...: str}, HARMLESS),
    "sweep.json": File(
        {
            "source": str,
            "best": str,
            "best_mode": str,
            "trials": [{"id": str, "overrides": dict, ...: object}],
            "hash?": str,
            "view?": {"statistic": str, "interval": str, "baseline": str, "style": str},
            ...: object,
        },
        "delete it and run the same sweep command again, which rewrites it and repeats no training",
    ),
    "request.json": File(
        {
            "config": str,
            "changes": dict,
            "commands": [[str]],
            "question": str,
            "experiment?": str,
        },
        HARMLESS,
    ),
    "group.json": File(
        {
            "members": [{"id": str, "overrides": dict, "config": dict}],
            "halving?": (
                {"rungs": list, "factor": int, "metric": str, "mode": str, ...: object},
                None,
            ),
            ...: object,
        },
        "delete it and run the same sweep command again, which rewrites it and repeats no training",
    ),
    "trials.json": File(
        {
            "trials": [{"trial": str, "seed": int, "status": str, ...: SCALAR}],
            "varied": [str],
            "best": str,
            "metric": str,
            "mode?": str,
        },
        "restore it from a copy, or commit the sweep again: "
        + format_command("figure", workdir="SWEEP", commit=True),
    ),
    "plan.json": File(
        {
            "members": [str],
            "route": str,
            "chunk": int,
            "devices": int,
            "halved?": [int],
            ...: object,
        },
        "delete it: the route is chosen again, and the last bits of results may differ",
    ),
    "rung.json": File({"step": int, "kept": [str], "stopped": {...: dict}}, COPY),
    "heartbeat.json": File({"host": str, "pid": int, "beats": int}, HARMLESS),
    "cache": File({"array_sha256": str, ...: object}, HARMLESS),
}


def read(path: Path, kind: str = "") -> dict | None:  # None if missing
    """Read and verify a document.

    Args:
      path: the file.
      kind: a key of FILES; the file's name by default.

    Returns:
      The contents without `format` and `sha256`, or None if the file does not exist.

    Raises:
      UserError: the file is damaged or unreadable; the message names the file, the
        defect and the remedy.
      FormatError: the file has another format number.
    """
    path, file = Path(path), FILES[kind or Path(path).name]
    raw = read_bytes(path)
    if raw is None:
        return None
    try:
        value = parse_json_object(raw)
        _check_version(path, value)
        require_undamaged(raw.endswith(b"\n"), "ends without a line break: a part is missing")
        require_undamaged(
            value.pop("sha256") == json_sha256(value), "does not match its sha256: it was changed"
        )
        _check_format(path, value.pop("format"), file)
        check_json_shape(value, file.shape, "it")
    except RecursionError:
        raise UserError(
            f"{path} is damaged: it is nested too deeply{_format_remedy(path, kind)}"
        ) from None
    except DamageError as e:
        raise UserError(f"{path} is damaged: it {e}{_format_remedy(path, kind)}") from None
    return value


def peek(path: Path, kind: str = "") -> dict | None:  # None if missing or damaged
    """Read a document as `read` does, but return None if it is damaged. For files that
    contain only wall-clock times or a status.
    """
    try:
        return read(path, kind)
    except UserError:
        return None


def write(path: Path, value: dict, kind: str = "") -> None:  # atomically, with its sha256
    """Write a document with its format and digest, atomically.

    Args:
      path: the file.
      value: the contents without `format` and `sha256`.
      kind: a key of FILES; the file's name by default.

    Raises:
      UserError: the value does not have the declared shape.
    """
    write_atomically(Path(path), encode(path, value, kind))


def encode(path: Path, value: dict, kind: str = "") -> bytes:  # with its format and sha256
    """Return the bytes of a document, with its format and digest.

    Args:
      path: the file, for its kind and for error messages.
      value: the contents without `format` and `sha256`.
      kind: a key of FILES; the file's name by default.

    Raises:
      UserError: the value does not have the declared shape.
    """
    file = FILES[kind or Path(path).name]
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
        check_json_shape(plain, file.shape, "it")
    except ValueError as e:
        raise UserError(f"{path} cannot be written: {e}") from None
    document = dict(format=file.format) | plain
    return (json.dumps(document | dict(sha256=json_sha256(document)), indent=1) + "\n").encode()


def json_sha256(value: object) -> str:  # of canonical JSON
    """Return the SHA-256 of a value as canonical JSON: sorted keys, ASCII."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_lines(
    path: Path, kind: str = "", skip_invalid: bool = False
) -> list[dict]:  # [] if missing
    """Return the rows of a JSON-lines file, [] if the file does not exist. An
    incomplete last line is skipped.

    Args:
      path: the file.
      kind: a key of FILES; the file's name by default.
      skip_invalid: skip invalid lines and unreadable files instead of raising a
        UserError.
    """
    path, kind = Path(path), kind or Path(path).name
    try:
        raw = read_bytes(path) or b""
    except UserError:
        if skip_invalid:
            return []
        raise
    rows = []
    # The bytes after the last newline are an incomplete line, or empty.
    for number, line in enumerate(raw.split(b"\n")[:-1], 1):
        try:
            rows.append(parse_line(line, kind))
        except ValueError as e:
            if not skip_invalid:
                advice = _format_remedy(path, kind)
                raise UserError(f"{path} is damaged: line {number} {e}{advice}") from None
    return rows


def append_line(path: Path, row: dict) -> None:  # to a JSON-lines file
    """Append a row to a JSON-lines file."""
    check_json_shape(row, FILES[Path(path).name].shape, "it")
    with open(path, "ab") as f:
        f.write(encode_line(row))


def encode_line(row: dict) -> bytes:  # ends in a newline
    """Return a row as a line of JSON."""
    return (json.dumps(row, allow_nan=False) + "\n").encode()


def parse_line(line: bytes, kind: str) -> dict:  # or ValueError
    """Parse one row of a JSON-lines file; raise a ValueError if it is invalid.

    Args:
      line: the bytes of the line, without its line break.
      kind: a key of FILES.
    """
    value = parse_json_object(line)
    check_json_shape(value, FILES[kind].shape, "it")
    return value


def read_bytes(path: Path) -> bytes | None:  # None if missing
    """Return the contents of a regular file, or None if it does not exist."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a FIFO would block
            raise UserError(f"{path} is not a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise UserError(f"{path.parent} is not a directory") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a temporary file in the same directory and rename it to `path`, so that
    readers find either the old or the new file.
    """
    part = path.with_name(path.name + ".part")
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        with open(part, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def find_remedy(path: Path, kind: str = "") -> str:
    """Return the remedy for a damaged file: in a sweep the restart of the sweep.

    Args:
      path: the file.
      kind: a key of FILES; the file's name by default.
    """
    remedy = FILES[kind or path.name].remedy
    return SWEEP_COPY if remedy == COPY and is_in_sweep(path.parent) else remedy


def is_in_sweep(folder: Path) -> bool:
    """Return whether a directory is a trial, a group or a rung of a sweep."""
    return any((parent / "sweep.json").is_file() for parent in folder.absolute().parents[1:3])


def _format_remedy(path: Path, kind: str) -> str:
    """Return the end of an error message: the remedy for a damaged file."""
    remedy = find_remedy(path, kind)
    return f"; {remedy}" if remedy else ""


def _check_version(path: Path, value: dict) -> None:
    if "format" not in value and "sha256" not in value:
        raise UserError(
            f"{path} was written by an earlier version of aigc_jax, whose files had no "
            "format number: "
            "read it with that version (its commit is in environment.json), or restart "
            "in another "
            f"{mark_argument('workdir')}, or in a run's own with "
            f"{format_command('train', config='FILE', restart=True)}"
        )
    for key in ("format", "sha256"):
        require_undamaged(key in value, f"has no {key}")


def _check_format(path: Path, value, file: File) -> None:
    require_undamaged(
        isinstance(value, int) and not isinstance(value, bool),
        "has a format that is not an integer",
    )
    if value != file.format:
        age = "newer" if value > file.format else "earlier"
        raise FormatError(
            f"{path} has format {value}, and this version of aigc_jax reads format {file.format}: "
            f"use the {age} version that wrote it"
        )


def json_float(value: Any) -> float | None:  # None for NaN and infinity
    """Return a number as a float for JSON: of a float32 the shortest decimal that
    represents it; None for NaN and infinity.
    """
    number = float(str(value)) if isinstance(value, np.float32) else float(value)
    return number if math.isfinite(number) else None

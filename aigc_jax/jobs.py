"""What engines run, and how it ended."""

import signal
from pathlib import Path
from typing import NamedTuple

from aigc_jax.errors import UserError

HELD = 75  # exit code of a job that another process is at
STOPPED = 143  # of one that was asked to stop, and saved
MOST_SHARES, MOST_MINUTES, MOST_SLOTS = (
    4096,
    525_600,
    10_000,
)  # CPUs or GPUs of a job; a year; jobs at a time
POLL = 0.1  # seconds between looks at what runs


class Job(NamedTuple):
    name: str
    words: list[str]  # of the command line, after the interpreter
    log: Path  # where its output goes


class Ended(NamedTuple):
    code: int
    reason: str  # the last line that it said, or how it was ended; "" where all went well


def cached(folder: Path | None) -> dict[str, str]:
    """A compilation cache that jobs share; the user's own settings come before it."""
    return dict(JAX_COMPILATION_CACHE_DIR=str(folder), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0") if folder else {}


def reason_of(code: int, log: Path) -> str:
    """Why a job ended: the last line of its log, or the signal."""
    if code == 0:
        return ""
    if code < 0:
        killed = " (out of memory, as likely as not)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{killed}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("error: ") if lines else f"exit code {code}"


def unreachable(engine: str, why) -> UserError:
    return UserError(f"--engine={engine} cannot be reached: {why}; nothing was started, and --engine=local runs the same groups here")


def missing(engine: str) -> UserError:
    return UserError(f"--engine={engine} needs the package {dict(slurm='submitit').get(engine, engine)}: pip install -r requirements-engines.txt")


def shares(args) -> tuple[float, float]:
    """CPUs and GPUs of a job."""
    for flag, value, least, most in (
        ("cpus", args.cpus, "more than 0", MOST_SHARES),
        ("gpus", args.gpus, "0 or more", MOST_SHARES),
        ("time", args.time, "0 or more", MOST_MINUTES),
        ("slots", args.slots, "0 or more", MOST_SLOTS),
    ):
        if not 0 <= value <= most or (flag == "cpus" and value == 0):
            raise UserError(f"--{flag}={value} must be {least}, at most {most:,}")
    return args.cpus, args.gpus


def whole(value: float, flag: str, engine: str) -> int:
    """A number of things that this engine does not share out in parts."""
    if value != int(value):
        raise UserError(f"{flag}={value:g} must be a whole number with --engine={engine}; ray alone gives parts")
    return int(value)

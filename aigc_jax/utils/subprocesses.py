"""Subprocesses that run this package, and their exit status."""

import os
import signal
import sys
from pathlib import Path

from aigc_jax.utils.errors import format_flags
from aigc_jax.utils.memory import EXHAUSTED
from aigc_jax.utils.python_files import PACKAGE, REPOSITORY

LAST_LINES = 20  # of a log that are searched for the reason of a signal
MODULE = ("-m", "aigc_jax")  # the command line, after the interpreter


def interpreter_arguments(verb: str, **flags: object) -> list[str]:  # ["-m", "aigc_jax", verb, ...]
    """Return the arguments to the interpreter that run a verb of the command line.

    Args:
      verb: a verb of the command line, such as "train".
      **flags: its flags, as in `errors.format_flags`.
    """
    return [*MODULE, verb, *format_flags(**flags)]


def launch_command() -> list[str]:  # words such as ["aigc"]; [] for a script
    """Return the words that started this process as the command line: `aigc` or
    `python -m aigc_jax`; an empty list where a script was started.
    """
    script = Path(sys.argv[0]).resolve()
    if script == PACKAGE / "__main__.py":
        return ["python", *MODULE]
    return ["aigc"] if script.name == "aigc" else []


def program_name() -> str:
    """Return the command with which the user started this command line."""
    return " ".join(launch_command()) or "python launch.py"


def package_environment() -> dict[str, str]:  # variables of a subprocess that imports aigc_jax
    """Return environment variables with which another interpreter imports the package
    that runs in this process, installed or not, and no other of this name.
    """
    # Otherwise `python -m` would import modules of the working directory first: a
    # user's random.py as well as another checkout.
    safe = dict(PYTHONSAFEPATH="1")
    if REPOSITORY.name in ("site-packages", "dist-packages"):
        return safe
    before = os.environ.get("PYTHONPATH")
    return safe | dict(PYTHONPATH=os.pathsep.join([str(REPOSITORY), *([before] if before else [])]))


def describe_failure(exit_code: int, log: Path) -> str:  # "" for exit code 0
    """Return why a job failed: the last line of its log, or the signal; "" if it did
    not.

    Args:
      exit_code: the exit code; of a process ended by a signal, minus its number.
      log: the file of the job's output; it may be missing.
    """
    if exit_code == 0:
        return ""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    if exit_code < 0:
        killed = " (probably out of memory)" if -exit_code == signal.SIGKILL else ""
        # C++ reports exhausted memory by SIGABRT, after a line in the log.
        exhausted = " (out of memory)" if any(map(EXHAUSTED.search, lines[-LAST_LINES:])) else ""
        return f"ended by {signal.Signals(-exit_code).name}{exhausted or killed}"
    return lines[-1].removeprefix("error: ") if lines else f"exit code {exit_code}"

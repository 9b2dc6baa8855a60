"""Processes that run this package, and how they ended."""

import os
import signal
import sys
from pathlib import Path

from aigc_jax.utils.errors import flags
from aigc_jax.utils.python_files import PACKAGE, REPOSITORY

MODULE = ("-m", "aigc_jax")  # the command line, after the interpreter


def command_line(verb: str, **arguments) -> list[str]:
    """The words after the interpreter that start a verb of the command line."""
    return [*MODULE, verb, *flags(**arguments)]


def launched_as() -> list[str]:
    """The words by which this process was started as the command line: `aigc` or
    `python -m aigc_jax`; none where a script was.
    """
    script = Path(sys.argv[0]).resolve()
    if script == PACKAGE / "__main__.py":
        return ["python", *MODULE]
    return ["aigc"] if script.name == "aigc" else []


def package_path() -> dict[str, str]:
    """The variables by which another interpreter finds the package that runs here,
    installed or not, and no other of this name.
    """
    # or `python -m` would import what lies in the working directory first: a user's
    # random.py as well as another checkout
    safe = dict(PYTHONSAFEPATH="1")
    if REPOSITORY.name in ("site-packages", "dist-packages"):
        return safe
    before = os.environ.get("PYTHONPATH")
    return safe | dict(PYTHONPATH=os.pathsep.join([str(REPOSITORY), *([before] if before else [])]))


def reason_of(code: int, log: Path) -> str:
    """Why a job ended: the last line of its log, or the signal."""
    if code == 0:
        return ""
    if code < 0:
        killed = " (out of memory, as likely as not)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{killed}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("error: ") if lines else f"exit code {code}"

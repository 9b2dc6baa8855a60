"""Subprocesses that run this package, and their exit status."""

import os
import signal
import sys
from pathlib import Path

from aigc_jax.utils.errors import flags
from aigc_jax.utils.python_files import PACKAGE, REPOSITORY

MODULE = ("-m", "aigc_jax")  # the command line, after the interpreter


def command_line(verb: str, **arguments) -> list[str]:
    """Return the arguments to the interpreter that run a verb of the command line."""
    return [*MODULE, verb, *flags(**arguments)]


def launched_as() -> list[str]:
    """Return the words that started this process as the command line: `aigc` or
    `python -m aigc_jax`; an empty list where a script was started.
    """
    script = Path(sys.argv[0]).resolve()
    if script == PACKAGE / "__main__.py":
        return ["python", *MODULE]
    return ["aigc"] if script.name == "aigc" else []


def package_path() -> dict[str, str]:
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


def reason_of(code: int, log: Path) -> str:
    """Return why a job failed: the last line of its log, or the signal; "" if it did
    not.
    """
    if code == 0:
        return ""
    if code < 0:
        killed = " (probably out of memory)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{killed}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("error: ") if lines else f"exit code {code}"

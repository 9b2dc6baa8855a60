"""What engines run, how it ended, and a job that is sent to another machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from aigc_jax.utils.errors import UserError, argument, require

REFUSED = 78  # exit code of a job that cannot go on as it is told, whatever its chunk
HELD = 75  # exit code of a job that another process is at
STOPPED = 143  # of one that was asked to stop, and saved
MOST_SHARES, MOST_MINUTES, MOST_SLOTS = (
    4096,
    525_600,
    10_000,
)  # CPUs or GPUs of a job; a year; jobs at a time
POLL = 0.1  # seconds between looks at what runs
SAVING = 120.0  # seconds that stopped jobs have to save
REACH = 5.0  # seconds within which a Ray cluster must answer: Ray itself tries for minutes
# Prefixes of variables that results depend on; a Ray cluster does not pass them on.
OURS = ("AIGC_", "JAX_", "XLA_")


class Job(NamedTuple):
    """A command line to run, by the name of its group."""

    name: str
    words: list[str]  # of the command line, after the interpreter
    log: Path  # where its output goes


class Ended(NamedTuple):
    """How a job ended."""

    code: int
    reason: str  # the last line that it said, or how it was ended; "" where all went well


Look = Callable[[], None]  # called while jobs run


class Engine(Protocol):
    """Runs jobs to their end and says how each ended; None where it only wrote down
    what is to be run.
    """

    def run(self, jobs: list[Job], look: Look) -> dict[str, Ended] | None:
        """Return {name: how it ended} of the jobs; call `look` now and then."""
        ...


def cached(folder: Path | None) -> dict[str, str]:
    """A compilation cache that jobs share; the user's own settings come before it."""
    return (
        dict(JAX_COMPILATION_CACHE_DIR=str(folder), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        if folder
        else {}
    )


def unreachable(engine: str, why: object) -> UserError:
    """Return the error of an engine whose cluster does not answer."""
    return UserError(
        f"{argument('engine')}={engine} cannot be reached: {why}; nothing was started, and "
        f"{argument('engine')}=local runs the same groups here"
    )


def missing(engine: str) -> UserError:
    """Return the error of an engine whose package is not installed."""
    package = dict(slurm="submitit").get(engine, engine)
    name = f"{argument('engine')}={engine}"
    return UserError(f"{name} needs the package {package}: pip install {package}")


def shares(args: Namespace) -> tuple[float, float]:
    """CPUs and GPUs of a job."""
    for name, value, least, most in (
        ("cpus", args.cpus, "more than 0", MOST_SHARES),
        ("gpus", args.gpus, "0 or more", MOST_SHARES),
        ("time", args.time, "0 or more", MOST_MINUTES),
        ("slots", args.slots, "0 or more", MOST_SLOTS),
    ):
        if not 0 <= value <= most or (name == "cpus" and value == 0):
            raise UserError(f"{argument(name)}={value} must be {least}, at most {most:,}")
    return args.cpus, args.gpus


def whole(value: float, name: str, engine: str) -> int:
    """A number of things that this engine does not share out in parts."""
    if value != int(value):
        raise UserError(
            f"{argument(name)}={value:g} must be a whole number with "
            f"{argument('engine')}={engine}; ray alone gives parts"
        )
    return int(value)


@contextlib.contextmanager
def signals_at_the_end() -> Iterator[None]:
    """Signals that arrive within are handled after it. What a handler is to stop may be
    there before the name by which it would.
    """
    if threading.current_thread() is not threading.main_thread():  # which handlers run in
        yield
        return
    early: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {n: signal.signal(n, lambda number, _: early.append(number)) for n in numbers}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, signal.SIG_DFL if handler is None else handler)
        for number in early:
            signal.raise_signal(number)


class Task:
    """A job as it is sent away. Called there it returns (exit code, why it ended)."""

    def __init__(
        self, job: Job, defaults: dict[str, str], variables: dict[str, str] | None = None
    ) -> None:
        self.words, self.log, self.folder = job.words, str(job.log.absolute()), os.getcwd()
        # The other machine's own variables override the first, and yield to the second.
        self.defaults, self.variables = defaults, variables or {}
        self.process: subprocess.Popen | None = None

    def __call__(self):
        """Run the command line, its output appended to the log, until it ends or is
        told to stop; return (exit code, why it was ended or '').
        """
        # Ray stops a task by SIGINT, which background processes of a shell ignore.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with signals_at_the_end():
                try:
                    self.process = self._start()
                except OSError as e:
                    return 1, f"its machine does not see the sweep: {e}"
            while self.process.poll() is None:
                time.sleep(POLL)
        finally:
            if self.process is not None:
                self.stop()
        code = self.process.returncode
        return (
            (STOPPED, "told to stop before it began")
            if -code in (signal.SIGTERM, signal.SIGINT)
            else (code, "")
        )

    def _start(self):
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, *self.words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.defaults | dict(os.environ) | self.variables,
                start_new_session=True,
                preexec_fn=self.prepare,
            )

    prepare: Callable[[], None] | None = None

    def stop(self) -> None:
        """The program saves and ends. Signal handlers call this too: they may not wait
        by the process's own lock.
        """
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait until the process has ended, and leave its exit code to `poll`."""
        assert self.process is not None
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


def reach(address: str) -> None:
    """Raise a UserError unless somebody listens there: Ray tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    require(
        host and port.isdecimal(),
        f"{argument('address')}={address} is neither HOST:PORT nor ray://HOST:PORT",
    )
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as e:
        raise unreachable("ray", f"{address}: {getattr(e, 'strerror', None) or e}") from None

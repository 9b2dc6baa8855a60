"""The interface of engines, their jobs, and tasks that run a job on another machine."""

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

EXIT_REFUSED = 78  # exit code of a job with a user error, which no smaller chunk solves
EXIT_LOCKED = 75  # exit code of a job whose group another process holds
EXIT_PREEMPTED = 143  # exit code of a job that saved after a request to stop
MOST_SHARES, MOST_MINUTES, MOST_SLOTS = (
    4096,
    525_600,
    10_000,
)  # CPUs or GPUs of a job; minutes of a job (one year); concurrent jobs
POLL = 0.1  # seconds between polls of the running jobs
SAVING = 120.0  # seconds that stopped jobs have to save
REACH = 5.0  # seconds within which a Ray cluster must answer; Ray itself retries for minutes
# Prefixes of environment variables that affect results; Ray does not forward them.
OURS = ("AIGC_", "JAX_", "XLA_")


class Job(NamedTuple):
    """A command line to run, named after its group."""

    name: str
    words: list[str]  # of the command line, after the interpreter
    log: Path  # the file of its output


class Ended(NamedTuple):
    """How a job ended."""

    code: int
    reason: str  # the last line of its log, or how it was ended; "" on success


OnPoll = Callable[[], None]  # called while jobs run


class Engine(Protocol):
    """Runs jobs to completion and returns how each ended, or None if the engine only
    wrote a manifest.
    """

    def run(self, jobs: list[Job], on_poll: OnPoll) -> dict[str, Ended] | None:
        """Return {name: how the job ended}; call `on_poll` periodically."""
        ...


def cache_variables(folder: Path | None) -> dict[str, str]:
    """Return environment variables of a shared compilation cache; the user's own
    settings take precedence.
    """
    return (
        dict(JAX_COMPILATION_CACHE_DIR=str(folder), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        if folder
        else {}
    )


def unreachable_error(engine: str, why: object) -> UserError:
    """Return the error of an engine whose cluster does not answer."""
    return UserError(
        f"{argument('engine')}={engine} cannot be reached: {why}; no job was started; "
        f"{argument('engine')}=local runs the same groups on this machine"
    )


def missing_package_error(engine: str) -> UserError:
    """Return the error of an engine whose package is not installed."""
    package = dict(slurm="submitit").get(engine, engine)
    name = f"{argument('engine')}={engine}"
    return UserError(f"{name} needs the package {package}: pip install {package}")


def resources(args: Namespace) -> tuple[float, float]:
    """Return the CPUs and GPUs of a job. Raise a UserError for invalid settings."""
    for name, value, least, most in (
        ("cpus", args.cpus, "more than 0", MOST_SHARES),
        ("gpus", args.gpus, "0 or more", MOST_SHARES),
        ("time", args.time, "0 or more", MOST_MINUTES),
        ("slots", args.slots, "0 or more", MOST_SLOTS),
    ):
        if not 0 <= value <= most or (name == "cpus" and value == 0):
            raise UserError(f"{argument(name)}={value} must be {least}, at most {most:,}")
    return args.cpus, args.gpus


def require_integer(value: float, name: str, engine: str) -> int:
    """Return a number of CPUs or GPUs as an integer. Raise a UserError for a fraction,
    which the engine does not support.
    """
    if value != int(value):
        raise UserError(
            f"{argument(name)}={value:g} must be an integer with "
            f"{argument('engine')}={engine}; only ray supports fractions"
        )
    return int(value)


@contextlib.contextmanager
def signals_at_the_end() -> Iterator[None]:
    """Delay the handling of signals that arrive within the context until its end.

    A process may be started before it is assigned to the variable by which a signal
    handler stops the process.
    """
    # Signal handlers run in the main thread only.
    if threading.current_thread() is not threading.main_thread():
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
    """A job that is sent to another machine; calling the task runs the job."""

    def __init__(
        self, job: Job, defaults: dict[str, str], variables: dict[str, str] | None = None
    ) -> None:
        self.words, self.log, self.folder = job.words, str(job.log.absolute()), os.getcwd()
        # The remote environment overrides `defaults`; `variables` override both.
        self.defaults, self.variables = defaults, variables or {}
        self.process: subprocess.Popen | None = None

    def __call__(self) -> tuple[int, str]:
        """Run the command line until it ends or is stopped, with its output appended to
        the log; return (exit code, why it was ended or '').
        """
        # Ray stops a task by SIGINT, which background processes of a shell ignore.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with signals_at_the_end():
                try:
                    self.process = self._start()
                except OSError as e:
                    return 1, f"its machine cannot access the sweep: {e}"
            while self.process.poll() is None:
                time.sleep(POLL)
        finally:
            if self.process is not None:
                self.stop()
        code = self.process.returncode
        return (
            (EXIT_PREEMPTED, "stopped before it started")
            if -code in (signal.SIGTERM, signal.SIGINT)
            else (code, "")
        )

    def _start(self) -> subprocess.Popen:
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
        """Send SIGTERM, so that the program saves, and wait until it ends. Signal
        handlers call this method too, so it must not wait for the Popen object's lock.
        """
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait until the process has ended, without reaping its exit code, which `poll`
        reads.
        """
        assert self.process is not None
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


def check_address(address: str) -> None:
    """Raise a UserError unless an address accepts connections, for which Ray itself
    would retry for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    require(
        host and port.isdecimal(),
        f"{argument('address')}={address} is neither HOST:PORT nor ray://HOST:PORT",
    )
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as e:
        raise unreachable_error("ray", f"{address}: {getattr(e, 'strerror', None) or e}") from None

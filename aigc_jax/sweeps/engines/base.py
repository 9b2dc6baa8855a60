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

from aigc_jax.utils.errors import UserError, mark_argument, require

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


class ExitStatus(NamedTuple):
    """How a job ended."""

    code: int
    reason: str  # the last line of its log, or how it was ended; "" on success


OnPoll = Callable[[], None]  # called while jobs run


class Engine(Protocol):
    """Runs jobs to completion and returns how each ended, or None if the engine only
    wrote a manifest.
    """

    def run(self, jobs: list[Job], on_poll: OnPoll) -> dict[str, ExitStatus] | None:  # by name
        """Return {name: how the job ended}.

        Args:
          jobs: jobs with distinct names, which run concurrently.
          on_poll: called every POLL seconds while jobs run.
        """
        ...


def unreachable_error(engine: str, reason: object) -> UserError:
    """Return the error of an engine whose cluster does not answer."""
    return UserError(
        f"{mark_argument('engine')}={engine} cannot be reached: {reason}; no job was started; "
        f"{mark_argument('engine')}=local runs the same groups on this machine"
    )


def missing_package_error(engine: str) -> UserError:
    """Return the error of an engine whose package is not installed."""
    package = dict(slurm="submitit").get(engine, engine)
    name = f"{mark_argument('engine')}={engine}"
    return UserError(f"{name} needs the package {package}: pip install {package} (extra engines)")


def check_resources(settings: Namespace) -> tuple[float, float]:  # CPUs, GPUs of a job
    """Return the CPUs and GPUs of a job.

    Args:
      settings: cpus (more than 0) and gpus of a job, its time in minutes, and slots; a
        time or slots of 0 are the engine's default.

    Raises:
      UserError: a number is out of range.
    """
    for name, value, least, most in (
        ("cpus", settings.cpus, "more than 0", MOST_SHARES),
        ("gpus", settings.gpus, "0 or more", MOST_SHARES),
        ("time", settings.time, "0 or more", MOST_MINUTES),
        ("slots", settings.slots, "0 or more", MOST_SLOTS),
    ):
        if not 0 <= value <= most or (name == "cpus" and value == 0):
            raise UserError(f"{mark_argument(name)}={value} must be {least}, at most {most:,}")
    return settings.cpus, settings.gpus


def require_integer(amount: float, resource: str, engine: str) -> int:
    """Return a number of CPUs or GPUs as an integer.

    Args:
      amount: the number.
      resource: "cpus" or "gpus", for the error message.
      engine: the engine's name, for the error message.

    Raises:
      UserError: the number is a fraction, which the engine does not support.
    """
    if amount != int(amount):
        raise UserError(
            f"{mark_argument(resource)}={amount:g} must be an integer with "
            f"{mark_argument('engine')}={engine}; only ray supports fractions"
        )
    return int(amount)


@contextlib.contextmanager
def delay_signals() -> Iterator[None]:  # until the context ends
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
    """A job that is sent to another machine; calling the task runs the job.

    Args:
      job: the job; its log must be on a file system that both machines share.
      variables: environment variables that override those of the other machine.
    """

    def __init__(self, job: Job, variables: dict[str, str] | None = None) -> None:
        self.words, self.log, self.folder = job.words, str(job.log.absolute()), os.getcwd()
        self.variables = variables or {}
        self.process: subprocess.Popen | None = None

    def __call__(self) -> tuple[int, str]:
        """Run the command line until it ends or is stopped, with its output appended to
        the log; return (exit code, why it was ended or '').
        """
        # Ray stops a task by SIGINT, which background processes of a shell ignore.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with delay_signals():
                try:
                    self.process = self._start_process()
                except OSError as e:
                    return 1, f"its machine cannot access the sweep: {e}"
            while self.process.poll() is None:
                time.sleep(POLL)
        finally:
            if self.process is not None:
                self.terminate_and_wait()
        code = self.process.returncode
        return (
            (EXIT_PREEMPTED, "stopped before it started")
            if -code in (signal.SIGTERM, signal.SIGINT)
            else (code, "")
        )

    def _start_process(self) -> subprocess.Popen:
        """Start the command line in the working directory of the machine that sent the
        task.
        """
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, *self.words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=dict(os.environ) | self.variables,
                start_new_session=True,
                preexec_fn=self.preexec_fn,
            )

    preexec_fn: Callable[[], None] | None = None

    def terminate_and_wait(self) -> None:  # SIGTERM
        """Send SIGTERM, so that the program saves, and wait until it ends. Signal
        handlers call this method too, so it must not wait for the Popen object's lock.
        """
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.wait_without_reaping()

    def wait_without_reaping(self) -> None:  # its exit code remains for poll
        """Wait until the process has ended, without reaping its exit code, which `poll`
        reads.
        """
        assert self.process is not None
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


def check_ray_reachable(address: str) -> None:  # HOST:PORT or ray://HOST:PORT
    """Raise a UserError unless an address accepts connections, for which Ray itself
    would retry for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    require(
        host and port.isdecimal(),
        f"{mark_argument('address')}={address} is neither HOST:PORT nor ray://HOST:PORT",
    )
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as e:
        raise unreachable_error("ray", f"{address}: {getattr(e, 'strerror', None) or e}") from None

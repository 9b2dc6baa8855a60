"""Where the command lines of a sweep run: an engine takes jobs and says how each ended. It knows neither configs nor trials."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aigc_jax.errors import UserError, require

HELD = 75  # exit code of a job that another process is at
STOPPED = 143  # of one that was asked to stop, and saved
POLL = 0.2  # seconds between looks at what runs


class Job(NamedTuple):
    name: str
    words: list[str]  # of the command line, after the interpreter
    log: Path  # where its output goes


class Ended(NamedTuple):
    code: int
    reason: str  # the last line that it said, or how it was ended; "" where all went well


def environment(cache: Path | None = None) -> dict[str, str]:
    """What jobs inherit: a compilation cache that they share, which the user's own settings come before."""
    shared = dict(JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0") if cache else {}
    return shared | dict(os.environ)


def reason_of(code: int, log: Path) -> str:
    """Why a job ended: the last line of its log, or the signal."""
    if code == 0:
        return ""
    if code < 0:
        killed = " (out of memory, as likely as not)" if -code == signal.SIGKILL else ""
        return f"ended by {signal.Signals(-code).name}{killed}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("error: ") if lines else f"exit code {code}"


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False)
        return found.stdout.split() if found.returncode == 0 else []
    except OSError:
        return []


class Local:
    """Processes on this host: one a GPU, or `slots` of them."""

    def __init__(self, slots: int = 0, cache: Path | None = None):
        require(slots >= 0, f"--slots={slots} must be at least 1")
        devices = gpus()
        self.places = [devices[i % len(devices)] if devices else None for i in range(slots or len(devices) or 1)]
        self.cache = cache

    def run(self, jobs: list[Job], look: Callable = lambda: None) -> dict[str, Ended]:
        """Run all jobs to their end; `look()` is called meanwhile. When this process is asked to stop the jobs are, and may save."""
        waiting, running, ended = list(jobs), {}, {}
        free = list(self.places)
        try:
            while waiting or running:
                while waiting and free:
                    job, place = waiting.pop(0), free.pop(0)
                    running[job.name] = job, place, self._start(job, place)
                for name, (job, place, process) in list(running.items()):
                    if process.poll() is not None:
                        ended[name] = Ended(process.returncode, reason_of(process.returncode, job.log))
                        del running[name]
                        free.append(place)
                look()
                time.sleep(POLL)
        except BaseException:
            for _, _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, _, process in running.values():
                process.wait()
            raise
        return ended

    def _start(self, job, place):
        variables = environment(self.cache) | ({} if place is None else dict(CUDA_VISIBLE_DEVICES=place))
        with open(job.log, "ab") as log:
            return subprocess.Popen([sys.executable, *job.words], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=variables,
                                    start_new_session=True)


# name -> (the words of the command line, the directory of the compilation cache) -> engine
ENGINES = {"local": lambda args, cache: Local(args.slots, cache)}


def unreachable(engine: str, why) -> UserError:
    return UserError(f"--engine={engine} cannot be reached: {why}; nothing was started, and --engine=local runs the same groups here")

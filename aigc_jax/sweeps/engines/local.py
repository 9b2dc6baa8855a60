"""The local engine: processes on this host, one per GPU or a fixed number."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aigc_jax.sweeps.engines.base import (
    MOST_SLOTS,
    POLL,
    Ended,
    Job,
    cache_variables,
    signals_at_the_end,
)
from aigc_jax.utils.errors import argument, require
from aigc_jax.utils.subprocesses import package_path, reason_of


def count_gpus() -> list[str]:
    """Return the GPUs that this process may use, as named by CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        process = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
        return process.stdout.split() if process.returncode == 0 else []
    except OSError:
        return []


class Local:
    """The engine of processes on this host: one per GPU, or `slots` processes."""

    def __init__(self, slots: int = 0, cache: Path | None = None):
        require(
            0 <= slots <= MOST_SLOTS, f"{argument('slots')}={slots} must be 1 to {MOST_SLOTS:,}"
        )
        devices = count_gpus()
        self.places = [
            devices[i % len(devices)] if devices else None
            for i in range(slots or len(devices) or 1)
        ]
        self.cache = cache

    def run(self, jobs: list[Job], on_poll: Callable = lambda: None) -> dict[str, Ended]:
        """Run all jobs to completion and call `on_poll` periodically. If this process
        is interrupted, the jobs receive SIGTERM and can save.
        """
        waiting = list(jobs)
        running: dict[str, tuple[Job, str | None, subprocess.Popen]] = {}
        ended: dict[str, Ended] = {}
        free = list(self.places)
        try:
            while waiting or running:
                while waiting and free:
                    self._begin(waiting.pop(0), free.pop(0), running)
                done = [
                    name for name, (*_, process) in running.items() if process.poll() is not None
                ]
                for name in done:
                    job, place, process = running.pop(name)
                    reason = reason_of(process.returncode, job.log)
                    ended[name] = Ended(process.returncode, reason)
                    free.append(place)
                on_poll()
                time.sleep(POLL)
        except BaseException:
            for _, _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, _, process in running.values():
                process.wait()
            raise
        return ended

    def _begin(self, job: Job, place: str | None, running: dict) -> None:
        """Start a job; from its start on, an interrupt stops it with the other jobs."""
        with signals_at_the_end():
            running[job.name] = job, place, self._start(job, place)

    def _start(self, job: Job, place: str | None) -> subprocess.Popen:
        variables = (
            cache_variables(self.cache)
            | dict(os.environ)
            | package_path()
            | ({} if place is None else dict(CUDA_VISIBLE_DEVICES=place))
        )
        with open(job.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, *job.words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=variables,
                start_new_session=True,
            )

"""The local engine: processes on this host, one per GPU or a fixed number."""

import os
import signal
import subprocess
import sys
import time

from aigc_jax.sweeps.engines.base import (
    MOST_SLOTS,
    POLL,
    ExitStatus,
    Job,
    OnPoll,
    delay_signals,
)
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.subprocesses import describe_failure, package_environment


def list_visible_gpus() -> list[str]:  # of CUDA_VISIBLE_DEVICES or nvidia-smi
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
    """The engine of processes on this host: one per GPU, or `slots` processes.

    Args:
      slots: number of concurrent processes, which share the GPUs; 0: one per GPU, or
        one without GPUs.
    """

    def __init__(self, slots: int = 0) -> None:
        require(
            0 <= slots <= MOST_SLOTS,
            f"{mark_argument('slots')}={slots} must be 1 to {MOST_SLOTS:,}",
        )
        devices = list_visible_gpus()
        self.slot_gpus = [
            devices[i % len(devices)] if devices else None
            for i in range(slots or len(devices) or 1)
        ]

    def run(
        self, jobs: list[Job], on_poll: OnPoll = lambda: None
    ) -> dict[str, ExitStatus]:  # by name
        """Run all jobs to completion and call `on_poll` periodically. If this process
        is interrupted, the jobs receive SIGTERM and can save.
        """
        waiting = list(jobs)
        running: dict[str, tuple[Job, str | None, subprocess.Popen]] = {}
        ended: dict[str, ExitStatus] = {}
        free = list(self.slot_gpus)
        try:
            while waiting or running:
                while waiting and free:
                    self._start_running(waiting.pop(0), free.pop(0), running)
                done = [
                    name for name, (*_, process) in running.items() if process.poll() is not None
                ]
                for name in done:
                    job, gpu, process = running.pop(name)
                    reason = describe_failure(process.returncode, job.log)
                    ended[name] = ExitStatus(process.returncode, reason)
                    free.append(gpu)
                on_poll()
                time.sleep(POLL)
        except BaseException:
            for _, _, process in running.values():
                process.send_signal(signal.SIGTERM)
            for _, _, process in running.values():
                process.wait()
            raise
        return ended

    def _start_running(self, job: Job, gpu: str | None, running: dict[str, tuple]) -> None:
        """Start a job; from its start on, an interrupt stops it with the other jobs."""
        with delay_signals():
            running[job.name] = job, gpu, self._start_process(job, gpu)

    def _start_process(self, job: Job, gpu: str | None) -> subprocess.Popen:
        """Start a job's process on a GPU; None: do not change CUDA_VISIBLE_DEVICES."""
        variables = (
            dict(os.environ)
            | package_environment()
            | ({} if gpu is None else dict(CUDA_VISIBLE_DEVICES=gpu))
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

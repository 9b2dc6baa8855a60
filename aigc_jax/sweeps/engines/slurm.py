"""The engine Slurm, by submitit: one array job of all programs."""

import contextlib
import copy
import io
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from aigc_jax.sweeps.engines import base
from aigc_jax.sweeps.engines.base import (
    EXIT_PREEMPTED,
    POLL,
    SAVING,
    ExitStatus,
    Job,
    OnPoll,
    Task,
    check_resources,
    missing_package_error,
    require_integer,
    unreachable_error,
)
from aigc_jax.utils.subprocesses import describe_failure, package_environment

MINUTES = 60  # default time limit of a job
REQUEUES = 30  # times that a program may reach its time limit and resume
ASK = 5.0  # seconds between queries of Slurm
# Seconds after which a job that Slurm no longer runs and that left no result counts as
# lost: shared file systems lag.
LOST = 15.0
# Seconds that a stopped job waits for Slurm to end it: only then does Slurm requeue a
# preempted job.
LINGER = 300.0
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
    "",
)
# States of jobs that were ended from outside, which are not failures of the program.
BY_OTHERS = ("CANCELLED", "DEADLINE", "PREEMPTED", "REVOKED", "TIMEOUT")


class SlurmTask(Task):
    """A task of an array job. Slurm's signals reach the program, too.

    USR2 is submitit's signal shortly before the time limit: the program saves and is
    requeued. Slurm sends TERM before it ends a cancelled or preempted job.
    """

    received_term = False

    def preexec_fn(self) -> None:  # ignores USR2 in the program
        """Ignore USR2 in the program: this process handles the signal."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def __call__(self) -> tuple[int, str]:
        """Run the task as Task does; after TERM, wait until Slurm ends the job."""
        from submitit.core.utils import UncompletedJobError

        signal.signal(signal.SIGTERM, self.forward_term_as_int)  # submitit ignores it
        try:
            ended = super().__call__()
            since = time.monotonic()
            while (
                self.received_term
                and ended[0] == EXIT_PREEMPTED
                and time.monotonic() - since < LINGER
            ):
                time.sleep(POLL)
            return ended
        except UncompletedJobError as e:  # the task reached its time limit too often
            return EXIT_PREEMPTED, str(e)

    def forward_term_as_int(self, signal_number: int, frame: object) -> None:
        """Forward Slurm's TERM to the program as INT, so that it saves."""
        self.received_term = True
        if self.process is not None:
            # INT, because a second TERM would end the program before it has saved.
            self.process.send_signal(signal.SIGINT)

    def checkpoint(self) -> Any:  # submitit's DelayedSubmission
        """Return the submission that submitit requeues: the same command line, which
        resumes.
        """
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.wait_without_reaping() if self.received_term else self.terminate_and_wait()
        again = copy.copy(self)
        again.process, again.received_term = None, False
        return DelayedSubmission(again)


class Slurm:
    """The engine of one array job of all programs; submitit's files: SWEEP/slurm.

    Args:
      args: workdir and the settings that Slurm reads (`engines.SETTINGS`).

    Raises:
      UserError: submitit or sbatch is missing, or a setting is invalid.
    """

    def __init__(self, settings: Namespace) -> None:
        try:
            import cloudpickle
            import submitit
        except ImportError:
            raise missing_package_error("slurm") from None
        if shutil.which("sbatch") is None:
            raise unreachable_error("slurm", "sbatch is not on the PATH")
        for module in (base, sys.modules[__name__]):
            # By value: the other machines may start where they cannot import it.
            cloudpickle.register_pickle_by_value(module)
        cpus, gpus = (
            require_integer(share, name, "slurm")
            for share, name in zip(check_resources(settings), ("cpus", "gpus"), strict=True)
        )
        more = dict(pair.split("=", 1) if "=" in pair else (pair, True) for pair in settings.slurm)
        self.folder = Path(settings.workdir).absolute() / "slurm"
        self.executor = submitit.SlurmExecutor(self.folder, max_num_timeout=REQUEUES)
        self.executor.update_parameters(
            job_name=Path(settings.workdir).absolute().name,
            time=settings.time or MINUTES,
            cpus_per_task=cpus,
            stderr_to_stdout=True,
            srun_args=[f"--cpus-per-task={cpus}"],  # srun no longer inherits the number from sbatch
            array_parallelism=settings.slots or 10**6,
            additional_parameters=more,
            **(dict(partition=settings.partition) if settings.partition else {}),
            **(dict(gpus_per_node=gpus) if gpus else {}),
        )

    def run(
        self, jobs: list[Job], on_poll: OnPoll = lambda: None
    ) -> dict[str, ExitStatus]:  # by name
        """Submit all jobs and wait until they have ended. If this process is
        interrupted, the jobs are cancelled and can save.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            # submitit also prints the errors that it raises
            with contextlib.redirect_stderr(io.StringIO()), self.executor.batch():
                tasks = [SlurmTask(job, package_environment()) for job in jobs]
                sent = {
                    job.name: (job, self.executor.submit(task))
                    for job, task in zip(jobs, tasks, strict=True)
                }
        except (FailedJobError, FailedSubmissionError) as e:  # sbatch's error message
            raise unreachable_error(
                "slurm", str(e).strip().splitlines()[-1].removeprefix("sbatch: error: ")
            ) from None
        array_job_id = next(iter(sent.values()))[1].job_id.split("_")[0]
        try:
            return self._wait(dict(sent), array_job_id, on_poll)
        except BaseException:
            subprocess.run(["scancel", array_job_id], check=False)
            end = time.monotonic() + SAVING
            while time.monotonic() < end and any(
                state not in ENDED for state in (query_job_states(array_job_id) or {}).values()
            ):
                time.sleep(POLL)
            raise

    def _wait(
        self, waiting: dict[str, tuple[Job, Any]], array_job_id: str, on_poll: OnPoll
    ) -> dict[str, ExitStatus]:
        """Return how the jobs of an array job ended. `waiting` is {name: (job,
        submitit's job)}.
        """
        ended: dict[str, ExitStatus] = {}
        ends: dict[str, tuple[str, float]] = {}
        last = 0.0
        while waiting:
            if time.monotonic() - last > ASK:
                states, last = query_job_states(array_job_id), time.monotonic()
                # This makes a network file system refresh the directory.
                self.folder.chmod(self.folder.stat().st_mode)
                jobs = {name: sent.job_id for name, (_, sent) in waiting.items()}
                ends |= {} if states is None else update_end_times(jobs, states, ends, last)
            for name, (job, sent) in list(waiting.items()):
                if sent.paths.result_pickle.exists():
                    ended[name] = read_exit_status(job, sent)
                elif name in ends and last - ends[name][1] > LOST:
                    ended[name] = infer_exit_status(sent, ends[name][0])
                waiting = {n: w for n, w in waiting.items() if n not in ended}
            on_poll()
            time.sleep(POLL)
        return ended


def query_job_states(array_job_id: str) -> dict[str, str] | None:  # {job id: state}
    """Return the states of an array job by squeue, which needs no accounting database
    and omits jobs that ended long ago; None if squeue fails.
    """
    process = subprocess.run(
        [
            "squeue",
            "--noheader",
            "--states=all",
            "--array",
            f"--jobs={array_job_id}",
            "--format=%i|%T",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode and "Invalid job id" not in process.stderr:
        return None
    return dict(line.strip().split("|") for line in process.stdout.splitlines())


def update_end_times(
    job_ids: dict[str, str],
    states: dict[str, str],
    previous_ends: dict[str, tuple[str, float]],
    now: float,
) -> dict[str, tuple[str, float]]:  # {name: (state, time of its end, or now)}
    """Return {name: (state, time)} of jobs: of an ended job, the time of the last query
    before its end was observed, or of the first query; else now.

    Args:
      job_ids: {name: job id}.
      states: {job id: state}, as `query_job_states` returns them.
      previous_ends: the previous result.
      now: the current time in seconds.
    """
    ends = {}
    for name, job_id in job_ids.items():
        state = states.get(job_id, "")
        ends[name] = (
            state,
            previous_ends[name][1] if state in ENDED and name in previous_ends else now,
        )
    return ends


def read_exit_status(job: Job, slurm_job: Any) -> ExitStatus:
    """Return how a job with a result file ended."""
    try:
        code, why = slurm_job.result()
    except Exception as e:  # any error of the remote process, with its traceback
        return ExitStatus(
            1,
            f"Slurm's job {slurm_job.job_id}: {type(e).__name__}; its log: "
            f"{slurm_job.paths.stdout}",
        )
    return ExitStatus(code, why or describe_failure(code, job.log))


def infer_exit_status(slurm_job: Any, state: str) -> ExitStatus:  # of a job without a result file
    """Return how a job without a result file ended, by its state in Slurm."""
    if state in BY_OTHERS:
        return ExitStatus(EXIT_PREEMPTED, f"Slurm's job {slurm_job.job_id} ended as {state}")
    return ExitStatus(
        1,
        f"Slurm's job {slurm_job.job_id} ended{f' as {state}' if state else ''}: "
        f"{describe_failure(1, slurm_job.paths.stdout)}",
    )

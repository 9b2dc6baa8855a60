"""The engine Slurm, through submitit: an array job of all programs."""

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
    POLL,
    SAVING,
    STOPPED,
    Ended,
    Job,
    Look,
    Task,
    cached,
    missing,
    shares,
    unreachable,
    whole,
)
from aigc_jax.utils.subprocesses import package_path, reason_of

MINUTES = 60  # of a job, unless `time` says otherwise
REQUEUES = 30  # times that a program may reach its time limit and go on
ASK = 5.0  # seconds between questions to Slurm
# Seconds after which a job that Slurm no longer runs is lost: shared file systems lag.
LOST = 15.0
# Seconds that a job which was told to stop waits for Slurm to end it: only then does
# Slurm queue a preempted job again.
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
# States of jobs that others ended: no failure of the program.
BY_OTHERS = ("CANCELLED", "DEADLINE", "PREEMPTED", "REVOKED", "TIMEOUT")


class SlurmTask(Task):
    """Slurm's signals reach the program itself as well. USR2, shortly before the time
    limit, is submitit's: the program saves and is queued again. TERM comes before Slurm
    ends a job that is cancelled or preempted.
    """

    told = False

    def prepare(self) -> None:
        """Ignore USR2 in the program, which is this process's signal to save."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def __call__(self):
        """Run as Task does; linger after TERM, until Slurm ends the job."""
        from submitit.core.utils import UncompletedJobError

        signal.signal(signal.SIGTERM, self.hand_on)  # submitit ignores it
        try:
            ended = super().__call__()
            since = time.monotonic()
            while self.told and ended[0] == STOPPED and time.monotonic() - since < LINGER:
                time.sleep(POLL)
            return ended
        except UncompletedJobError as e:  # it reached the time limit too often
            return STOPPED, str(e)

    def hand_on(self, number: int, frame: object) -> None:
        """Pass Slurm's TERM on to the program as INT, for it to save."""
        self.told = True
        if self.process is not None:
            # INT, for a second TERM would end it before it has saved.
            self.process.send_signal(signal.SIGINT)

    def checkpoint(self) -> Any:
        """What submitit queues again: the same command line, which resumes."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.wait() if self.told else self.stop()
        again = copy.copy(self)
        again.process, again.told = None, False
        return DelayedSubmission(again)


class Slurm:
    """One array job of all programs. submitit's files lie in SWEEP/slurm."""

    def __init__(self, args: Namespace, cache: Path | None) -> None:
        try:
            import cloudpickle
            import submitit
        except ImportError:
            raise missing("slurm") from None
        if shutil.which("sbatch") is None:
            raise unreachable("slurm", "there is no sbatch on the PATH")
        for module in (base, sys.modules[__name__]):
            # By value: the machines could not import it from wherever they start.
            cloudpickle.register_pickle_by_value(module)
        cpus, gpus = (
            whole(share, name, "slurm")
            for share, name in zip(shares(args), ("cpus", "gpus"), strict=True)
        )
        more = dict(pair.split("=", 1) if "=" in pair else (pair, True) for pair in args.slurm)
        self.cache, self.folder = cache, Path(args.workdir).absolute() / "slurm"
        self.executor = submitit.SlurmExecutor(self.folder, max_num_timeout=REQUEUES)
        self.executor.update_parameters(
            job_name=Path(args.workdir).absolute().name,
            time=args.time or MINUTES,
            cpus_per_task=cpus,
            stderr_to_stdout=True,
            srun_args=[f"--cpus-per-task={cpus}"],  # which srun no longer takes over from sbatch
            array_parallelism=args.slots or 10**6,
            additional_parameters=more,
            **(dict(partition=args.partition) if args.partition else {}),
            **(dict(gpus_per_node=gpus) if gpus else {}),
        )

    def run(self, jobs: list[Job], look: Look = lambda: None) -> dict[str, Ended]:
        """Submit, and wait until all have ended. When this process is asked to stop the
        jobs are cancelled, and may save.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            # submitit also prints what it raises
            with contextlib.redirect_stderr(io.StringIO()), self.executor.batch():
                tasks = [SlurmTask(job, cached(self.cache), package_path()) for job in jobs]
                sent = {
                    job.name: (job, self.executor.submit(task))
                    for job, task in zip(jobs, tasks, strict=True)
                }
        except (FailedJobError, FailedSubmissionError) as e:  # what sbatch says
            raise unreachable(
                "slurm", str(e).strip().splitlines()[-1].removeprefix("sbatch: error: ")
            ) from None
        number = next(iter(sent.values()))[1].job_id.split("_")[0]
        try:
            return self._wait(dict(sent), number, look)
        except BaseException:
            subprocess.run(["scancel", number], check=False)
            end = time.monotonic() + SAVING
            while time.monotonic() < end and any(
                state not in ENDED for state in (asked(number) or {}).values()
            ):
                time.sleep(POLL)
            raise

    def _wait(self, waiting, number, look):
        ended: dict[str, Ended] = {}
        lost: dict[str, tuple[str, float]] = {}
        last = 0.0
        while waiting:
            if time.monotonic() - last > ASK:
                states, last = asked(number), time.monotonic()
                # This makes a network file system look at the directory again.
                self.folder.chmod(self.folder.stat().st_mode)
                for name, (_, sent) in waiting.items():
                    if states is None:
                        break
                    state = states.get(sent.job_id, "")
                    lost[name] = (
                        (state, lost.get(name, (state, last))[1])
                        if state in ENDED
                        else (state, last)
                    )
            for name, (job, sent) in list(waiting.items()):
                if sent.paths.result_pickle.exists():
                    ended[name] = result(job, sent)
                elif name in lost and last - lost[name][1] > LOST:
                    ended[name] = without_result(sent, lost[name][0])
                waiting = {n: w for n, w in waiting.items() if n not in ended}
            look()
            time.sleep(POLL)
        return ended


def asked(number: str) -> dict[str, str] | None:
    """The states of an array job by squeue, which needs no accounting; those that are
    long over are not there. None: no answer.
    """
    said = subprocess.run(
        ["squeue", "--noheader", "--states=all", "--array", f"--jobs={number}", "--format=%i|%T"],
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode and "Invalid job id" not in said.stderr:
        return None
    return dict(line.strip().split("|") for line in said.stdout.splitlines())


def result(job: Job, sent: Any) -> Ended:
    """How a job ended that left a result."""
    try:
        code, why = sent.result()
    except Exception as e:  # the trace of whatever went wrong over there
        return Ended(
            1, f"Slurm's job {sent.job_id}: {type(e).__name__}; its log: {sent.paths.stdout}"
        )
    return Ended(code, why or reason_of(code, job.log))


def without_result(sent: Any, state: str) -> Ended:
    """How one ended that Slurm put an end to."""
    if state in BY_OTHERS:
        return Ended(STOPPED, f"Slurm's job {sent.job_id} ended as {state}")
    return Ended(
        1,
        f"Slurm's job {sent.job_id} ended{f' as {state}' if state else ''}: "
        f"{reason_of(1, sent.paths.stdout)}",
    )

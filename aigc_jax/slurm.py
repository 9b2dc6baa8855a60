"""The engine Slurm, through submitit: an array job of all programs."""

import contextlib
import copy
import io
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from aigc_jax import cluster
from aigc_jax.cluster import SAVING, Task
from aigc_jax.jobs import POLL, STOPPED, Ended, cached, missing, reason_of, shares, unreachable, whole

MINUTES = 60  # of a job, unless --time says otherwise
REQUEUES = 30  # times that a program may reach its time limit and go on
ASK = 5.0  # seconds between questions to Slurm
LOST = 15.0  # seconds after which a job that Slurm no longer runs will leave no result any more: shared file systems lag
LINGER = 300.0  # seconds that a job which was told to stop waits for Slurm to end it: only then does Slurm queue a preempted job again
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT", "")
BY_OTHERS = ("CANCELLED", "DEADLINE", "PREEMPTED", "REVOKED", "TIMEOUT")  # not the program's failure


class SlurmTask(Task):
    """Slurm's signals reach the program itself as well. USR2, shortly before the time limit, is submitit's: the program saves and is queued again.
    TERM comes before Slurm ends a job that is cancelled or preempted."""

    told = False

    def prepare(self):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def __call__(self):
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

    def hand_on(self, number, frame):
        self.told = True
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # a second TERM would end it before it has saved

    def checkpoint(self):
        """What submitit queues again: the same command line, which goes on by itself."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.wait() if self.told else self.stop()
        again = copy.copy(self)
        again.process, again.told = None, False
        return DelayedSubmission(again)


class Slurm:
    """One array job of all programs. submitit's files lie in SWEEP/slurm."""

    def __init__(self, args, cache):
        try:
            import cloudpickle
            import submitit
        except ImportError:
            raise missing("slurm") from None
        if shutil.which("sbatch") is None:
            raise unreachable("slurm", "there is no sbatch on the PATH")
        for module in (cluster, sys.modules[__name__]):
            cloudpickle.register_pickle_by_value(module)  # or the machines would have to import it, from wherever they start
        cpus, gpus = (whole(share, flag, "slurm") for share, flag in zip(shares(args), ("--cpus", "--gpus"), strict=True))
        more = dict(pair.split("=", 1) if "=" in pair else (pair, True) for pair in args.slurm)
        self.cache, self.folder = cache, Path(args.workdir).absolute() / "slurm"
        self.executor = submitit.SlurmExecutor(self.folder, max_num_timeout=REQUEUES)
        self.executor.update_parameters(
            job_name=Path(args.workdir).absolute().name, time=args.time or MINUTES, cpus_per_task=cpus, stderr_to_stdout=True,
            srun_args=[f"--cpus-per-task={cpus}"],  # which srun no longer takes over from sbatch
            array_parallelism=args.slots or 10**6, additional_parameters=more,
            **(dict(partition=args.partition) if args.partition else {}), **(dict(gpus_per_node=gpus) if gpus else {}))  # fmt: skip

    def run(self, jobs, look=lambda: None):
        """Submit, and wait until all have ended. When this process is asked to stop the jobs are cancelled, and may save."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with contextlib.redirect_stderr(io.StringIO()), self.executor.batch():  # submitit also prints what it raises
                sent = {job.name: (job, self.executor.submit(SlurmTask(job, cached(self.cache)))) for job in jobs}
        except (FailedJobError, FailedSubmissionError) as e:  # what sbatch says
            raise unreachable("slurm", str(e).strip().splitlines()[-1].removeprefix("sbatch: error: ")) from None
        number = next(iter(sent.values()))[1].job_id.split("_")[0]
        try:
            return self._wait(dict(sent), number, look)
        except BaseException:
            subprocess.run(["scancel", number], check=False)
            end = time.monotonic() + SAVING
            while time.monotonic() < end and any(state not in ENDED for state in (asked(number) or {}).values()):
                time.sleep(POLL)
            raise

    def _wait(self, waiting, number, look):
        ended, lost, last = {}, {}, 0.0
        while waiting:
            if time.monotonic() - last > ASK:
                states, last = asked(number), time.monotonic()
                self.folder.chmod(self.folder.stat().st_mode)  # a network file system then looks anew what is there
                for name, (_, sent) in waiting.items() if states is not None else ():
                    state = states.get(sent.job_id, "")
                    lost[name] = (state, lost.get(name, (state, last))[1]) if state in ENDED else (state, last)
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
    """The states of an array job by squeue, which needs no accounting; those that are long over are not there. None: no answer."""
    said = subprocess.run(["squeue", "--noheader", "--states=all", "--array", f"--jobs={number}", "--format=%i|%T"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    if said.returncode and "Invalid job id" not in said.stderr:
        return None
    return dict(line.strip().split("|") for line in said.stdout.splitlines())


def result(job, sent) -> Ended:
    """How a job ended that left a result."""
    try:
        code, why = sent.result()
    except Exception as e:  # the trace of whatever went wrong over there
        return Ended(1, f"Slurm's job {sent.job_id}: {type(e).__name__}; its log: {sent.paths.stdout}")
    return Ended(code, why or reason_of(code, job.log))


def without_result(sent, state) -> Ended:
    """How one ended that Slurm put an end to."""
    if state in BY_OTHERS:
        return Ended(STOPPED, f"Slurm's job {sent.job_id} ended as {state}")
    return Ended(1, f"Slurm's job {sent.job_id} ended{f' as {state}' if state else ''}: {reason_of(1, sent.paths.stdout)}")

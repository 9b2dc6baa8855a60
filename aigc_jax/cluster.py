"""Jobs on other machines, and the engine Ray. All machines must see the repository, its Python and the sweep at the same paths."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from aigc_jax.errors import first_line, require
from aigc_jax.jobs import POLL, STOPPED, Ended, cached, missing, reason_of, shares, unreachable

SAVING = 120.0  # seconds that stopped jobs have to save
REACH = 5.0  # seconds within which a Ray cluster must answer: Ray itself tries for minutes
OURS = ("AIGC_", "JAX_", "XLA_")  # variables that a Ray cluster does not take over from here, and that bytes depend on


class Task:
    """A job as it is sent away. Called over there it returns (exit code, why it was ended)."""

    def __init__(self, job, defaults, variables=None):
        self.words, self.log, self.folder = job.words, str(job.log.absolute()), os.getcwd()
        self.defaults, self.variables = defaults, variables or {}  # what is set over there comes between them
        self.process = None

    def __call__(self):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray's way to say stop, which background processes of a shell ignore
        try:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen([sys.executable, *self.words], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                                cwd=self.folder, env=self.defaults | dict(os.environ) | self.variables, start_new_session=True,
                                                preexec_fn=self.prepare)  # fmt: skip
        except OSError as e:
            return 1, f"its machine does not see the sweep: {e}"
        try:
            while self.process.poll() is None:
                time.sleep(POLL)
        finally:
            self.stop()
        code = self.process.returncode
        return (STOPPED, "told to stop before it began") if -code in (signal.SIGTERM, signal.SIGINT) else (code, "")

    prepare = None

    def stop(self):
        """The program saves and ends. Signal handlers call this too: they may not wait by the process's own lock."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


class Ray:
    """Tasks of a Ray cluster that is there (--address), or of one that is started here for as long as it takes."""

    def __init__(self, args, cache):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns; see `variables`
        try:
            import ray
        except ImportError:
            raise missing("ray") from None
        self.ray, self.address, self.cache = ray, args.address or os.environ.get("RAY_ADDRESS", ""), cache
        self.shares = dict(zip(("num_cpus", "num_gpus"), shares(args), strict=True))
        self.variables = {k: v for k, v in os.environ.items() if k.startswith(OURS)}
        # Without a share of a GPU a program has none; with a part of one it takes that part of its memory.
        self.variables |= dict(CUDA_VISIBLE_DEVICES="") if not args.gpus else {}
        self.variables |= dict(XLA_PYTHON_CLIENT_MEM_FRACTION=f"{0.9 * args.gpus:.2f}") if 0 < args.gpus < 1 else {}
        if self.address:
            reach(self.address)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # or the machines would have to import it

    def run(self, jobs, look=lambda: None):
        """Run all jobs to their end. When this process is asked to stop the jobs are, and may save."""
        ray, ended = self.ray, {}
        with self._connected():
            remote = ray.remote(**self.shares)(lambda task: task())
            waiting = {remote.options(name=job.name).remote(Task(job, cached(self.cache), self.variables)): job for job in jobs}
            try:
                while waiting:
                    for ref in ray.wait(list(waiting), timeout=POLL)[0]:
                        job = waiting.pop(ref)
                        ended[job.name] = self._result(ref, job)
                    look()
            except BaseException:
                for ref in waiting:
                    ray.cancel(ref)
                ray.wait(list(waiting), num_returns=len(waiting), timeout=SAVING)
                raise
        return ended

    @contextlib.contextmanager
    def _connected(self):
        before = signal.getsignal(signal.SIGTERM)  # Ray sets its own
        try:
            given = dict(address=self.address) if self.address else dict(address="local", include_dashboard=False)
            self.ray.init(**given, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as e:
            token = " (if it asks for a token: RAY_AUTH_MODE=token)" if self.address else ""
            raise unreachable("ray", str(e).strip().split(". ")[0] + token) from None
        signal.signal(signal.SIGTERM, before)
        try:
            for key, name in dict(num_cpus="CPU", num_gpus="GPU").items() if not self.address else ():
                there = self.ray.cluster_resources().get(name, 0)
                require(self.shares[key] <= there, f"--{key[4:]}={self.shares[key]:g} is more than the {there:g} of this machine")
            yield
        finally:
            self.ray.shutdown()

    def _result(self, ref, job) -> Ended:
        try:
            code, why = self.ray.get(ref)
        except self.ray.exceptions.RayError as e:
            return Ended(1, f"Ray lost its process: {first_line(e)}")
        return Ended(code, why or reason_of(code, job.log))


def reach(address: str):
    """Raise a UserError unless somebody listens there: Ray itself tries for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    require(host and port.isdecimal(), f"--address={address} is neither HOST:PORT nor ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as e:
        raise unreachable("ray", f"{address}: {getattr(e, 'strerror', None) or e}") from None

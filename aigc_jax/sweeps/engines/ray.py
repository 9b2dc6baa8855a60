"""Jobs on other machines, and the engine Ray. All machines must see the repository, its
Python and the sweep at the same paths.
"""

import contextlib
import os
import signal
from argparse import Namespace
from pathlib import Path

from aigc_jax.sweeps.engines import base
from aigc_jax.sweeps.engines.base import (
    OURS,
    POLL,
    SAVING,
    Ended,
    Job,
    Look,
    Task,
    cached,
    missing,
    reach,
    shares,
    unreachable,
)
from aigc_jax.utils.errors import argument, first_line, require
from aigc_jax.utils.subprocesses import package_path, reason_of


class Ray:
    """Tasks of a Ray cluster that is there (`address`), or of one that is started here
    for as long as it takes.
    """

    def __init__(self, args: Namespace, cache: Path | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray warns without it; see `variables`.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise missing("ray") from None
        self.ray, self.address, self.cache = (
            ray,
            args.address or os.environ.get("RAY_ADDRESS", ""),
            cache,
        )
        self.shares = dict(zip(("num_cpus", "num_gpus"), shares(args), strict=True))
        self.variables = {k: v for k, v in os.environ.items() if k.startswith(OURS)}
        self.variables |= package_path()
        # Without a share of a GPU a program has none; with a part of one it takes that
        # part of its memory.
        self.variables |= dict(CUDA_VISIBLE_DEVICES="") if not args.gpus else {}
        self.variables |= (
            dict(XLA_PYTHON_CLIENT_MEM_FRACTION=f"{0.9 * args.gpus:.2f}")
            if 0 < args.gpus < 1
            else {}
        )
        if self.address:
            reach(self.address)
        ray.cloudpickle.register_pickle_by_value(base)  # or the machines would have to import it

    def run(self, jobs: list[Job], look: Look = lambda: None) -> dict[str, Ended]:
        """Run all jobs to their end. When this process is asked to stop the jobs are,
        and may save.
        """
        ray, ended = self.ray, {}
        with self._connected():
            remote = ray.remote(**self.shares)(lambda task: task())
            waiting = {
                remote.options(name=job.name).remote(
                    Task(job, cached(self.cache), self.variables)
                ): job
                for job in jobs
            }
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
            given = (
                dict(address=self.address)
                if self.address
                else dict(address="local", include_dashboard=False)
            )
            self.ray.init(**given, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as e:
            token = " (if it asks for a token: RAY_AUTH_MODE=token)" if self.address else ""
            raise unreachable("ray", str(e).strip().split(". ")[0] + token) from None
        signal.signal(signal.SIGTERM, before)
        try:
            for key, name in (
                dict(num_cpus="CPU", num_gpus="GPU").items() if not self.address else ()
            ):
                there = self.ray.cluster_resources().get(name, 0)
                require(
                    self.shares[key] <= there,
                    f"{argument(key[4:])}={self.shares[key]:g} is more than the {there:g} of this "
                    "machine",
                )
            yield
        finally:
            self.ray.shutdown()

    def _result(self, ref, job) -> Ended:
        try:
            code, why = self.ray.get(ref)
        except self.ray.exceptions.RayError as e:
            return Ended(1, f"Ray lost its process: {first_line(e)}")
        return Ended(code, why or reason_of(code, job.log))

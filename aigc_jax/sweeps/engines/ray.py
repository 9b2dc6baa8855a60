"""The engine Ray. All machines must have the repository, its Python and the sweep at
the same paths.
"""

import contextlib
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aigc_jax.sweeps.engines import base
from aigc_jax.sweeps.engines.base import (
    OURS,
    POLL,
    SAVING,
    Ended,
    Job,
    OnPoll,
    Task,
    cache_variables,
    check_address,
    missing_package_error,
    resources,
    unreachable_error,
)
from aigc_jax.utils.errors import argument, first_line, require
from aigc_jax.utils.subprocesses import package_path, reason_of


class Ray:
    """The engine of tasks on an existing Ray cluster (`address`), or on a local cluster
    that is started for the duration of the sweep.
    """

    def __init__(self, args: Namespace, cache: Path | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray warns if this is unset; `variables` sets CUDA_VISIBLE_DEVICES.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise missing_package_error("ray") from None
        self.ray, self.address, self.cache = (
            ray,
            args.address or os.environ.get("RAY_ADDRESS", ""),
            cache,
        )
        self.shares = dict(zip(("num_cpus", "num_gpus"), resources(args), strict=True))
        self.variables = {k: v for k, v in os.environ.items() if k.startswith(OURS)}
        self.variables |= package_path()
        # A program without a GPU share has no GPU; a program with a fraction of a GPU
        # uses that fraction of its memory.
        self.variables |= dict(CUDA_VISIBLE_DEVICES="") if not args.gpus else {}
        self.variables |= (
            dict(XLA_PYTHON_CLIENT_MEM_FRACTION=f"{0.9 * args.gpus:.2f}")
            if 0 < args.gpus < 1
            else {}
        )
        if self.address:
            check_address(self.address)
        ray.cloudpickle.register_pickle_by_value(base)  # else all machines must import it

    def run(self, jobs: list[Job], on_poll: OnPoll = lambda: None) -> dict[str, Ended]:
        """Run all jobs to completion. If this process is interrupted, the jobs are
        cancelled and can save.
        """
        ray, ended = self.ray, dict[str, Ended]()
        with self._connected():
            remote = ray.remote(**self.shares)(lambda task: task())
            waiting = {
                remote.options(name=job.name).remote(
                    Task(job, cache_variables(self.cache), self.variables)
                ): job
                for job in jobs
            }
            try:
                while waiting:
                    done = ray.wait(list(waiting), timeout=POLL)[0]
                    collected = [(ref, waiting.pop(ref)) for ref in done]
                    ended |= {job.name: self._result(ref, job) for ref, job in collected}
                    on_poll()
            except BaseException:
                for ref in waiting:
                    ray.cancel(ref)
                ray.wait(list(waiting), num_returns=len(waiting), timeout=SAVING)
                raise
        return ended

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGTERM)  # Ray replaces the handler
        try:
            cluster = (
                dict(address=self.address)
                if self.address
                else dict(address="local", include_dashboard=False)
            )
            self.ray.init(**cluster, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as e:
            token = (
                " (if the cluster requires a token: RAY_AUTH_MODE=token)" if self.address else ""
            )
            raise unreachable_error("ray", str(e).strip().split(". ")[0] + token) from None
        signal.signal(signal.SIGTERM, before)
        try:
            for key, name in (
                dict(num_cpus="CPU", num_gpus="GPU").items() if not self.address else ()
            ):
                available = self.ray.cluster_resources().get(name, 0)
                require(
                    self.shares[key] <= available,
                    f"{argument(key[4:])}={self.shares[key]:g} is more than the {available:g} of "
                    "this machine",
                )
            yield
        finally:
            self.ray.shutdown()

    def _result(self, ref: Any, job: Job) -> Ended:
        try:
            code, why = self.ray.get(ref)
        except self.ray.exceptions.RayError as e:
            return Ended(1, f"Ray lost its process: {first_line(e)}")
        return Ended(code, why or reason_of(code, job.log))

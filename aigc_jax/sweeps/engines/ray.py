"""The engine Ray. All machines must have the repository, its Python and the sweep at
the same paths.
"""

import contextlib
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from aigc_jax.sweeps.engines import base
from aigc_jax.sweeps.engines.base import (
    OURS,
    POLL,
    SAVING,
    ExitStatus,
    Job,
    OnPoll,
    Task,
    check_ray_reachable,
    check_resources,
    missing_package_error,
    unreachable_error,
)
from aigc_jax.utils.errors import first_line, mark_argument, require
from aigc_jax.utils.subprocesses import describe_failure, package_environment


class Ray:
    """The engine of tasks on an existing Ray cluster (`address`), or on a local cluster
    that is started for the duration of the sweep.

    Args:
      args: the settings that Ray reads (`engines.SETTINGS`).
      cache: directory of the compilation cache; None: no cache.

    Raises:
      UserError: the package ray is missing, the cluster does not answer, or a setting
        is invalid.
    """

    def __init__(self, settings: Namespace) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray warns if this is unset; `variables` sets CUDA_VISIBLE_DEVICES.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise missing_package_error("ray") from None
        self.ray, self.address = ray, settings.address or os.environ.get("RAY_ADDRESS", "")
        self.shares = dict(zip(("num_cpus", "num_gpus"), check_resources(settings), strict=True))
        self.variables = {k: v for k, v in os.environ.items() if k.startswith(OURS)}
        self.variables |= package_environment()
        # A program without a GPU share has no GPU; a program with a fraction of a GPU
        # uses that fraction of its memory.
        self.variables |= dict(CUDA_VISIBLE_DEVICES="") if not settings.gpus else {}
        self.variables |= (
            dict(XLA_PYTHON_CLIENT_MEM_FRACTION=f"{0.9 * settings.gpus:.2f}")
            if 0 < settings.gpus < 1
            else {}
        )
        if self.address:
            check_ray_reachable(self.address)
        ray.cloudpickle.register_pickle_by_value(base)  # else all machines must import it

    def run(
        self, jobs: list[Job], on_poll: OnPoll = lambda: None
    ) -> dict[str, ExitStatus]:  # by name
        """Run all jobs to completion. If this process is interrupted, the jobs are
        cancelled and can save.
        """
        ray, ended = self.ray, dict[str, ExitStatus]()
        with self._connected():
            remote = ray.remote(**self.shares)(lambda task: task())
            waiting = {
                remote.options(name=job.name).remote(Task(job, self.variables)): job for job in jobs
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
        """Connect to the cluster, or start a local one, until the context ends. Raise a
        UserError where this fails or a job needs more than this machine has.
        """
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
                    f"{mark_argument(key[4:])}={self.shares[key]:g} is more than the "
                    f"{available:g} of this machine",
                )
            yield
        finally:
            self.ray.shutdown()

    def _result(self, ref: Any, job: Job) -> ExitStatus:
        """Return how a job ended, by the reference of its task."""
        try:
            code, why = self.ray.get(ref)
        except self.ray.exceptions.RayError as e:
            return ExitStatus(1, f"Ray lost its process: {first_line(e)}")
        return ExitStatus(code, why or describe_failure(code, job.log))

"""Engines run the command lines of a sweep: an engine accepts jobs and returns how each
ended. An engine knows neither configs nor trials.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aigc_jax.sweeps.engines.base import Engine
from aigc_jax.sweeps.engines.local import Local
from aigc_jax.utils.errors import mark_argument, require, short_repr


def make_slurm(settings: Namespace) -> Engine:
    """Return the engine Slurm. Raise a UserError if submitit or sbatch is missing."""
    from aigc_jax.sweeps.engines.slurm import Slurm

    return Slurm(settings)


def make_ray(settings: Namespace) -> Engine:
    """Return the engine Ray. Raise a UserError if package or cluster is missing."""
    from aigc_jax.sweeps.engines.ray import Ray

    return Ray(settings)


def make_kubernetes(settings: Namespace) -> Engine:
    """Return the engine that writes a Kubernetes manifest and runs nothing."""
    from aigc_jax.sweeps.engines.kubernetes import Kubernetes

    return Kubernetes(settings)


class Setting(NamedTuple):
    """A setting of engines: its default, and the engines that read it."""

    default: Any
    read_by: tuple[str, ...]


SETTINGS = {
    "slots": Setting(0, ("local", "slurm", "k8s")),
    "cpus": Setting(1, ("slurm", "ray", "k8s")),
    "gpus": Setting(0, ("slurm", "ray", "k8s")),
    "time": Setting(0, ("slurm", "k8s")),
    "partition": Setting("", ("slurm",)),
    "slurm": Setting([], ("slurm",)),
    "address": Setting("", ("ray",)),
    "image": Setting("", ("k8s",)),
    "claim": Setting("", ("k8s",)),
}

DEFAULT_SETTINGS = {name: setting.default for name, setting in SETTINGS.items()}


def check_engine_settings(
    engine: str, settings: Mapping[str, Any]
) -> None:  # raises if set but not read by the engine
    """Raise a UserError for a setting that differs from its default and that the engine
    does not read.

    Args:
      engine: a key of ENGINES.
      settings: the value of every setting in SETTINGS; further names are ignored.
    """
    for name, setting in SETTINGS.items():
        value = settings[name]
        require(
            value == setting.default or engine in setting.read_by,
            f"{mark_argument(name)}={short_repr(value, quote_strings=False)} is not used by "
            f"{mark_argument('engine')}={engine}, only by {', '.join(setting.read_by)}",
        )


# name -> help
HELP = {
    "local": "processes on this machine, by default one per GPU",
    "slurm": "an array of jobs of sbatch, by submitit; preempted programs are requeued",
    "ray": "tasks of a Ray cluster",
    "k8s": "writes the manifest of a Kubernetes job and runs nothing",
}
# name -> settings -> engine. Its
# run(jobs, on_poll) returns how each job ended, or None if it only wrote a manifest.
ENGINES: dict[str, Callable[[Namespace], Engine]] = {
    "local": lambda args: Local(args.slots),
    "slurm": make_slurm,
    "ray": make_ray,
    "k8s": make_kubernetes,
}

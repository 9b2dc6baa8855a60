"""Where the command lines of a sweep run: an engine takes jobs and says how each ended.
It knows neither configs nor trials.
"""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from aigc_jax.sweeps.engines.base import Engine
from aigc_jax.sweeps.engines.local import Local


def make_slurm(args: Namespace, cache: Path | None) -> Engine:
    """Return the engine Slurm; a UserError where submitit or sbatch is missing."""
    from aigc_jax.sweeps.engines.slurm import Slurm

    return Slurm(args, cache)


def make_ray(args: Namespace, cache: Path | None) -> Engine:
    """Return the engine Ray; a UserError where package or cluster is missing."""
    from aigc_jax.sweeps.engines.ray import Ray

    return Ray(args, cache)


def make_kubernetes(args: Namespace, cache: Path | None) -> Engine:
    """Return the engine that writes a Kubernetes manifest and runs nothing."""
    from aigc_jax.sweeps.engines.kubernetes import Kubernetes

    return Kubernetes(args)


# name -> (the words of the command line, the directory of the compilation cache) ->
# engine, whose run(jobs, look) returns how each job ended, or None where it only wrote
# down what is to be run
ENGINES: dict[str, Callable[[Namespace, Path | None], Engine]] = {
    "local": lambda args, cache: Local(args.slots, cache),
    "slurm": make_slurm,
    "ray": make_ray,
    "k8s": make_kubernetes,
}

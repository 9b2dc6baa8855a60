"""Train one group of a sweep; the verb `sweep` starts this command on its engine."""

import os
from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the group's directory and how its trials are vectorized."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="SWEEP/groups/NAME")
    parser.add_argument(
        "--halve", action="store_true", help="halve the plan's number of trials at once"
    )
    parser.add_argument(
        "--route",
        default="auto",
        metavar="auto|vmap|map",
        help="run the trials of a program all at once (vmap), one after another (map), or by "
        "the faster of both (auto, the default)",
    )
    parser.add_argument("--download", action="store_true", help="download missing data")


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Train the group, with one simulated device per CPU core; return the exit code."""
    flags = os.environ.get("XLA_FLAGS", "")
    # The trials are divided among the simulated devices; GPUs and TPUs ignore the flag.
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = (
            f"{flags} --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
        )

    from aigc_jax.sweeps import group as groups

    return groups.train_group(args.workdir, args.route, args.halve, args.download)

"""Train one group of a sweep: what `sweep` has an engine run."""

import os


def add_arguments(parser):
    """Add the group's directory, and how its trials are to become one program."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="SWEEP/groups/NAME")
    parser.add_argument(
        "--halve", action="store_true", help="with half as many trials at once as the plan says"
    )
    parser.add_argument(
        "--route",
        default="auto",
        metavar="auto|vmap|map",
        help="trials of a program: all at once, one after another, or the faster",
    )
    parser.add_argument("--download", action="store_true", help="fetch missing data")


def run(args, overrides) -> int:
    """Train the group, with a simulated device a CPU core; return its exit code."""
    flags = os.environ.get("XLA_FLAGS", "")
    # One simulated device a CPU core, with trials each; GPUs and TPUs ignore the flag.
    if "host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = (
            f"{flags} --xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
        )

    from aigc_jax.sweeps import group as groups

    return groups.run(args.workdir, args.route, args.halve, args.download)

"""Show the status of a sweep.

Prints the trials by status, the progress and the remaining time of each program, and
the reasons of failures. With --watch, updates them until the sweep is finished.
"""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the sweep's directory and whether to watch it."""
    parser.add_argument("sweep", metavar="SWEEP", help="work directory of a sweep")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="update until the sweep is finished: tables on a terminal, else a line every 5 s",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Print or watch the status of the sweep and return exit code 0."""
    from aigc_jax.sweeps import status
    from aigc_jax.sweeps.sweep import Sweep

    (status.watch_sweep if args.watch else status.print_status)(Sweep(args.sweep))
    return 0

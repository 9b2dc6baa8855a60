"""Compare runs or trials.

Prints the differences of their configs and their last rows. With --out, plots their
curves.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from aigc_jax.utils.errors import require
from aigc_jax.utils.terminal import print_blocks, print_text


def add_arguments(parser: ArgumentParser) -> None:
    """Add the runs to compare, the figure file and the metric to plot."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="work directories of runs, or trials of sweeps"
    )
    parser.add_argument(
        "--out",
        default="",
        metavar="FILE",
        help="plot the curves to this .png or .pdf (default: no figure)",
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="the metric to plot (default: config.best_metric)",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Print the comparison of the runs, plot their curves and return exit code 0."""
    from aigc_jax.sweeps.compare import compare_runs

    out = Path(args.out) if args.out else None
    require(
        out is None or out.suffix in (".png", ".pdf"),
        f"--out={args.out} must end in .png or .pdf",
    )
    print_blocks(compare_runs(args.runs, out, args.metric))
    if out is not None:
        print_text(f"\ncurves: {out}")
    return 0

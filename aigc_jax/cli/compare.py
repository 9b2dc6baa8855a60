"""Lay runs or trials side by side.

Prints what differs in their configs and their last rows. With --out, their curves are
drawn.
"""

from pathlib import Path

from aigc_jax.utils.errors import require
from aigc_jax.utils.terminal import print_text


def add_arguments(parser):
    """Add the runs to compare, the picture to write and the metric to draw."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="work directories of runs, or trials of sweeps"
    )
    parser.add_argument(
        "--out",
        default="",
        metavar="FILE",
        help="draw their curves into this .png or .pdf (default: no figure)",
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="whose curves are drawn (default: config.best)",
    )


def run(args, overrides) -> int:
    """Print the runs side by side, draw their curves and return the exit code 0."""
    from aigc_jax.sweeps.compare import compare

    out = Path(args.out) if args.out else None
    require(
        out is None or out.suffix in (".png", ".pdf"),
        f"--out={args.out} must end in .png or .pdf",
    )
    print_text(compare(args.runs, out, args.metric))
    if out is not None:
        print_text(f"\ncurves: {out}")
    return 0

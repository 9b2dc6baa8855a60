"""Flags of how table, figure and report show a sweep, shared by `sweep`, `figure` and
`report`.
"""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aigc_jax.sweeps.presentation import Presentation


def add_statistic_arguments(parser: ArgumentParser, default: str = "") -> None:
    """Add the statistic, the error bar and the baseline.

    Args:
      parser: the parser of the verb.
      default: the statistic; "": that of the sweep's table.md, else the mean.
    """
    parser.add_argument(
        "--statistic",
        default=default,
        metavar="mean|median|iqm",
        help="of the trials that differ in the seed; iqm: interquartile mean, of fewer "
        "than four the mean (default: "
        + ("mean)" if default else "that of the sweep's table.md, else mean)"),
    )
    parser.add_argument(
        "--interval",
        default="",
        metavar="NAME",
        help="what error bars show: se, standard error (default of a mean); sd, standard "
        "deviation; student, 95-percent interval by Student's t; bootstrap, 95-percent percentile "
        "interval (default of median and iqm)",
    )
    parser.add_argument(
        "--baseline",
        default="",
        metavar="ARM",
        help="compare all others with this arm, such as lr=0.001 or lr=0.001,beta=1: differences "
        "over common seeds, with a paired t test and Holm's correction",
    )


def add_presentation_arguments(parser: ArgumentParser) -> None:
    """Add the statistic, the error bar, the baseline and the style."""
    add_statistic_arguments(parser, "mean")
    parser.add_argument(
        "--style",
        default="plain",
        metavar="plain|paper|slide",
        help="size and fonts of the figure; paper: 3.25 inches and 8 points; slide: 16:9 and 16 "
        "points (default: plain)",
    )


def read_presentation(args: Namespace) -> "Presentation":
    """Return the presentation that the flags name."""
    from aigc_jax.sweeps.presentation import make_presentation

    return make_presentation(args.statistic, args.interval, args.baseline, args.style)

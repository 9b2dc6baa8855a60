"""Flags of how table and figure show a sweep, shared by `sweep` and `figure`."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aigc_jax.sweeps.presentation import Presentation


def add_presentation_arguments(parser: ArgumentParser) -> None:
    """Add the statistic, the error bar, the baseline and the style."""
    parser.add_argument(
        "--statistic",
        default="mean",
        metavar="mean|median|iqm",
        help="of the trials that differ in the seed; iqm: interquartile mean (default: mean)",
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

"""Write a report of runs, a sweep or an experiment as one HTML file.

The file opens in a browser without a network: tables, curves, hyper-parameters, failed
trials, samples, configs, and the commands that train each trial again. It is made from
files alone, also while a sweep runs, and at the end of every sweep (--no_report turns
this off). Needs the packages of aigc_jax[report].
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from aigc_jax.cli.presentation_flags import add_statistic_arguments
from aigc_jax.utils.terminal import print_text


def add_arguments(parser: ArgumentParser) -> None:
    """Add what is shown, the experiment, the metric and the file."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run, several runs, a sweep, or an experiment, whose committed rows are shown",
    )
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        help="of a sweep: the experiment, whose question, claims, table and figure are shown",
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="the first metric of the tables and curves (default: the experiment's, else "
        "config.best_metric)",
    )
    add_statistic_arguments(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the .html file (default: report.html in the directory of the run or the sweep; "
        "required for several runs and for an experiment)",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Write the report and return exit code 0."""
    from aigc_jax.sweeps import experiment as experiments
    from aigc_jax.sweeps.pages.write import write_report

    experiment = experiments.load(args.experiment) if args.experiment else None
    out = Path(args.out) if args.out else None
    chosen = dict(statistic=args.statistic, interval=args.interval, baseline=args.baseline)
    print_text(f"report: {write_report(args.paths, out, experiment, args.metric, chosen)}")
    return 0

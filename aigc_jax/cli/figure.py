"""Regenerate the table and the figure of a sweep or an experiment.

The rows are those of a sweep (--workdir) or those committed with an experiment. The
table (table.md), the figure (figure.png, figure.pdf) and the rows behind it
(figure.csv) are written to the directory of the rows, or to --out. The experiments of
an installed package are never modified: without --out, only their tables are printed.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_jax.cli.presentation_flags import add_presentation_arguments, read_presentation
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import require
from aigc_jax.utils.python_files import SHIPPED
from aigc_jax.utils.terminal import print_text

if TYPE_CHECKING:
    from aigc_jax.sweeps.experiment import Experiment
    from aigc_jax.sweeps.presentation import Presentation


def add_arguments(parser: ArgumentParser) -> None:
    """Add the experiment, the sweep, the metric and whether to commit the results."""
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        help="the experiment, whose table and figure are drawn; without --workdir, on its "
        "committed rows",
    )
    parser.add_argument("--workdir", metavar="DIR", help="a sweep")
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="the metric of the figure and of the first column of the table (default: the "
        "experiment's, else config.best_metric in the figure and the test split in the table)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="output directory (default: the directory of the rows)"
    )
    add_presentation_arguments(parser)
    parser.add_argument(
        "--commit",
        action="store_true",
        help="also save rows, table and figure in results/ next to the experiment",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Write the table and the figure of a sweep or of an experiment's committed rows;
    return exit code 0.
    """
    from aigc_jax.sweeps import experiment as experiments
    from aigc_jax.sweeps import report

    view = read_presentation(args)
    experiment = experiments.load(args.experiment) if args.experiment else None
    require(experiment or args.workdir, "figure needs --experiment=FILE, --workdir=SWEEP, or both")
    shipped = bool(
        experiment and experiment.file and experiment.file.resolve().is_relative_to(SHIPPED)
    )
    out = Path(args.out) if args.out else None
    if args.workdir:
        check_commit(args, experiment, shipped)
        draw_sweep(args, experiment, view, out)
        return 0
    require(not args.commit, "--commit needs --workdir=SWEEP, whose rows are committed")
    assert experiment is not None  # without --workdir, --experiment is required
    folder = out or (None if shipped else experiment.results_dir)
    with convert_disk_errors(folder or experiment.results_dir):
        report.render_committed_results(
            experiment.results_dir, folder, experiment, args.metric, view=view
        )
    if folder is None:
        print_text("figure: not written; --out=DIR writes figure and table to DIR")
    return 0


def check_commit(args: Namespace, experiment: "Experiment | None", shipped: bool) -> None:
    """Raise a UserError for --commit without an experiment, or with one of the
    installed package.
    """
    require(
        experiment or not args.commit,
        "--commit needs --experiment=FILE, next to which the rows are stored",
    )
    require(
        not (args.commit and shipped),
        "--commit stores the rows next to the experiment, which is part of the installed "
        f"package: copy {experiment and experiment.file} to a directory of your own and pass "
        "the copy by --experiment",
    )


def draw_sweep(
    args: Namespace, experiment: "Experiment | None", view: "Presentation", out: Path | None
) -> None:
    """Write the table and the figure of --workdir, and with --commit next to the
    experiment.
    """
    from aigc_jax.sweeps import report
    from aigc_jax.sweeps.direct import draw_results
    from aigc_jax.sweeps.request_json import check_experiment
    from aigc_jax.sweeps.sweep import Sweep

    if experiment and experiment.run:
        workdir = Path(args.workdir)
        draw_results(experiment, workdir, out or workdir, args.commit, view)
        return
    sweep = Sweep(args.workdir)
    check_experiment(sweep.path, experiment)
    results = report.write_sweep_results(sweep, experiment, args.metric, out_dir=out, view=view)
    if args.commit and experiment:
        report.write_committed_results(sweep, results, experiment.results_dir, experiment)

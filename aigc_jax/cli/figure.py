"""Regenerate the table and the figure of a sweep or an experiment.

The rows are those of a sweep (--workdir) or those committed with an experiment. Table
and figure are written to the directory of the rows, or to --out. The experiments of an
installed package are never modified: without --out, only their tables are printed.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import require
from aigc_jax.utils.python_files import SHIPPED
from aigc_jax.utils.terminal import print_text


def add_arguments(parser: ArgumentParser) -> None:
    """Add the experiment, the sweep, the metric and whether to commit the results."""
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        help="the experiment whose table() and figure() are called; without --workdir, on its "
        "committed rows",
    )
    parser.add_argument("--workdir", metavar="DIR", help="a sweep")
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="the metric to show where the experiment sets none (default: config.best)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="output directory (default: the directory of the rows)"
    )
    parser.add_argument(
        "--commit",
        action="store_true",
        help="also save rows, table and figure in results/ next to the experiment",
    )


def run(args: Namespace, overrides: dict[str, str]) -> int:
    """Write the table and the figure of a sweep or of an experiment's committed rows;
    return exit code 0.
    """
    from aigc_jax.sweeps import experiment
    from aigc_jax.sweeps.report import commit_results, render_committed, write_results
    from aigc_jax.sweeps.sweep import Sweep

    module = experiment.load(args.experiment) if args.experiment else None
    require(
        args.experiment or args.workdir, "figure needs --experiment=FILE, --workdir=SWEEP, or both"
    )
    file = Path(module.__file__) if module and module.__file__ else None
    shipped = file is not None and file.resolve().is_relative_to(SHIPPED)
    committed = file.parent / "results" / file.stem if file else None
    out = Path(args.out) if args.out else None
    if args.workdir:
        require(
            committed or not args.commit,
            "--commit needs --experiment=FILE, beside which the rows are kept",
        )
        require(
            not (args.commit and shipped),
            "--commit keeps the rows beside the experiment, which is part of the installed "
            f"package: copy {file} into a folder of yours and name it by --experiment",
        )
        it = Sweep(args.workdir)
        found = write_results(it, module, args.metric, out=out)
        if args.commit and committed:
            commit_results(it, found, committed, module)
        return 0
    require(not args.commit, "--commit needs --workdir=SWEEP, whose rows it keeps")
    assert committed is not None  # without --workdir, --experiment is required
    folder = out or (None if shipped else committed)
    with disk_errors(folder or committed):
        render_committed(committed, folder, module, args.metric)
    if folder is None:
        print_text("figure: --out=DIR writes it there, and the table")
    return 0

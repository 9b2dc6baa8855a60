"""Train every trial of a grid or an experiment.

Trials with equal static keys are trained as one program. The same command resumes an
unfinished sweep. Writes rows.csv, table.md, figure.png, .pdf and .csv, report.html and
one run directory per trial.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_jax.cli.presentation_flags import add_presentation_arguments, read_presentation
from aigc_jax.sweeps import engines
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.terminal import print_text, print_warning

if TYPE_CHECKING:
    from aigc_jax.sweeps.experiment import Experiment
    from aigc_jax.sweeps.request import Request


def add_arguments(parser: ArgumentParser) -> None:
    """Add the source of the trials, how they are run, and the engine's options."""
    parser.add_argument(
        "--restart",
        action="store_true",
        help="delete the output of unfinished or damaged groups and train them again",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="output directory; an unfinished sweep in it is resumed",
    )
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        help="an experiment: what is trained, and its table and figure",
    )
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        help="of an experiment with parts: train these; rows of the others are unchanged",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="instead of --experiment: a config, whose keys --grid varies; --config.KEY=VALUE "
        "sets a key in all trials",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="values of a key, such as hp.lr=1e-4,3e-4; repeat for a Cartesian product",
    )
    parser.add_argument(
        "--seeds", type=int, default=None, metavar="N", help="train each with seeds 0 to N - 1"
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="only print the numbers of trials, programs and steps and the memory",
    )
    parser.add_argument(
        "--engine",
        default="local",
        metavar="NAME",
        help="where the programs run: local (default), slurm, ray or k8s",
    )
    parser.add_argument(
        "--slots",
        type=int,
        metavar="N",
        help="local, slurm, k8s: concurrent programs (default: local: one per GPU, else one; "
        "slurm, k8s: all)",
    )
    parser.add_argument(
        "--cpus",
        type=float,
        metavar="N",
        help="slurm, ray, k8s: CPUs per program (default: 1)",
    )
    parser.add_argument(
        "--gpus",
        type=float,
        metavar="N",
        help="slurm, ray, k8s: GPUs per program (default: 0); ray: also a fraction, such as 0.5",
    )
    parser.add_argument(
        "--time",
        type=int,
        metavar="MINUTES",
        help="slurm, k8s: time limit, after which a program saves and is requeued (default: "
        "slurm: 60; k8s: no limit)",
    )
    parser.add_argument(
        "--partition",
        metavar="NAME",
        help="slurm: the partition (default: Slurm's default)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        metavar="KEY=VALUE",
        help="slurm: a further option of sbatch, such as account=lab or mem=32G",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="ray: an existing cluster (default: $RAY_ADDRESS, else a local one is started)",
    )
    parser.add_argument(
        "--image",
        metavar="NAME",
        help="k8s: a container image whose `python` has aigc_jax installed",
    )
    parser.add_argument(
        "--claim",
        metavar="NAME:PATH",
        help="k8s: the volume claim that contains DIR, mounted at PATH (default: DIR of the node)",
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="the metric of the figure and of the first column of the table (default: the "
        "experiment's, else config.best_metric in the figure and the test split in the table)",
    )
    add_presentation_arguments(parser)
    parser.add_argument(
        "--route",
        default="auto",
        metavar="auto|vmap|map",
        help="run the trials of a program all at once (vmap), one after another (map), or by "
        "the faster of both (auto, the default)",
    )
    parser.add_argument(
        "--no_report",
        action="store_true",
        help="write no report.html at the end (aigc report DIR writes it later)",
    )
    parser.add_argument("--download", action="store_true", help="download missing data")
    parser.set_defaults(**engines.DEFAULT_SETTINGS)


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Run a sweep, or only show its dry run; return the exit code."""
    from aigc_jax.sweeps import experiment as experiments
    from aigc_jax.sweeps import request as requests
    from aigc_jax.sweeps.sweep import Sweep

    sweep = Sweep(args.workdir)
    view = read_presentation(args)
    if args.experiment is not None and not args.config:
        experiment = experiments.load(args.experiment)
        if experiment.run:
            return run_custom_experiment(experiment, args, overrides)
    require(args.only is None, "--only is for experiments that train parts by their own function")
    request = read_request(args, overrides)
    requests.check_shown(request, sweep, args.metric, args.baseline)
    if args.dry_run:
        describe_request(request)
        return 0
    try:
        complete = requests.run_request(request, args, args.route, args.restart, args.download)
    except KeyboardInterrupt:
        print_warning(
            "stopped; running programs save their state; the same command resumes the sweep"
        )
        return 130
    if complete is not None:  # None: the engine wrote a manifest and ran nothing
        requests.write_and_check_outcome(
            sweep,
            request.experiment,
            complete,
            args.metric,
            with_page=not args.no_report,
            view=view,
        )
    return 0


def read_request(args: Namespace, overrides: dict[str, str]) -> "Request":
    """Return the request of the flags."""
    from aigc_jax.sweeps import grid
    from aigc_jax.sweeps import request as requests

    grids = [grid.parse_grid(text) for text in args.grid]
    require(
        args.seeds != 0,
        f"{mark_argument('seeds')}=0 must be a number of seeds, 1 to {grid.MOST_TRIALS:,}",
    )
    seeds = args.seeds or 0
    return requests.make_request(args.config, args.experiment, grids, seeds, overrides)


def describe_request(request: "Request") -> None:
    """Print the groups of a request, which the next sweep would train."""
    from aigc_jax.sweeps import launch

    launch.describe_groups(request.trials)
    if request.search:
        print_text(
            f"the first of {request.search.trials} trials, which the search suggests "
            f"{request.search.batch} at a time"
        )


def run_custom_experiment(
    experiment: "Experiment", args: Namespace, overrides: dict[str, str]
) -> int:
    """Train an experiment by its own function; return exit code 0. Raise a UserError
    for overrides and flags that the function does not read.
    """
    from aigc_jax.sweeps.direct import run_experiment
    from aigc_jax.sweeps.pages.write import write_final_report

    used = dict(engine=args.engine != "local", grid=args.grid, seeds=args.seeds, metric=args.metric)
    used |= dict(config=overrides, dry_run=args.dry_run, restart=args.restart)
    used |= read_presentation(args)._asdict() | dict(
        statistic=args.statistic != "mean", style=args.style != "plain"
    )
    for flag, value in used.items():
        require(
            not value,
            f"--{flag} is not read by {args.experiment}, whose own training function reads only "
            "--workdir and --only",
        )
    workdir = Path(args.workdir)
    run_experiment(experiment, workdir, args.only.split(",") if args.only else ())
    if not args.no_report:
        write_final_report(workdir, experiment, print_text)
    return 0

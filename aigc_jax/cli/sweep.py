"""Train every trial of a grid or an experiment.

Trials that share their static keys are one program. The same command trains what is
missing. Leaves rows.csv, table.md, figure.png and a run directory a trial.
"""

from aigc_jax.sweeps import engines
from aigc_jax.utils.terminal import print_text, print_warning


def add_arguments(parser):
    """Add where the trials come from, how they are grouped, the engine's options."""
    parser.add_argument(
        "--restart",
        action="store_true",
        help="remove what groups that are not finished, or damaged, left and train them again",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="where everything is left; a sweep that lies there goes on",
    )
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        help="a file of experiments/ with CONFIG and sweep() or search(suggest)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="instead: a config, whose keys --grid varies; --config.KEY=VALUE sets a key of all "
        "trials",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="values of a key, such as hp.lr=1e-4,3e-4; twice: all pairs",
    )
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="seeds 0 to N - 1 of each"
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="only say how many trials, programs and steps, and how much memory",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="only show how the sweep in DIR stands, until it is done",
    )
    parser.add_argument(
        "--engine",
        default="local",
        metavar="NAME",
        help="where the programs run: local (default), slurm, ray, k8s",
    )
    parser.add_argument(
        "--slots",
        type=int,
        metavar="N",
        help="local, slurm, k8s: programs at a time (default: local: one a GPU, else one; else "
        "as many as there are)",
    )
    parser.add_argument(
        "--cpus",
        type=float,
        metavar="N",
        help="slurm, ray, k8s: CPUs of a program (default: 1)",
    )
    parser.add_argument(
        "--gpus",
        type=float,
        metavar="N",
        help="slurm, ray, k8s: GPUs of a program (default: 0); ray: also a part of one: 0.5",
    )
    parser.add_argument(
        "--time",
        type=int,
        metavar="MINUTES",
        help="slurm, k8s: after which a program is saved and queued again (default: slurm: 60; "
        "k8s: no limit)",
    )
    parser.add_argument(
        "--partition",
        metavar="NAME",
        help="slurm: which partition (default: Slurm's)",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        metavar="KEY=VALUE",
        help="slurm: another option of sbatch, such as account=lab or mem=32G",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="ray: a cluster that is there (default: $RAY_ADDRESS, else one is started here)",
    )
    parser.add_argument(
        "--image",
        metavar="NAME",
        help="k8s: a container whose `python` has aigc_jax installed",
    )
    parser.add_argument(
        "--claim",
        metavar="NAME:PATH",
        help="k8s: the volume claim DIR lies on, mounted at PATH (default: DIR of the node)",
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="SPLIT/NAME",
        help="what table and figure show (default: config.best)",
    )
    parser.add_argument(
        "--route",
        default="auto",
        metavar="auto|vmap|map",
        help="trials of a program: all at once, one after another, or the faster",
    )
    parser.add_argument("--download", action="store_true", help="fetch missing data")
    parser.set_defaults(**engines.DEFAULT_SETTINGS)


def run(args, overrides) -> int:
    """Carry out a sweep, or only say how it stands or what it would do."""
    from aigc_jax.sweeps import grid, launch
    from aigc_jax.sweeps.request import carry_out, check_metric, finish, make_request
    from aigc_jax.sweeps.sweep import Sweep

    sweep = Sweep(args.workdir)
    if args.watch:
        launch.watch(sweep)
        return 0
    check_metric(args.metric)
    grids = [grid.parse(text) for text in args.grid]
    request = make_request(args.config, args.experiment, grids, args.seeds, overrides)
    if args.dry_run:
        launch.describe(request.trials)
        if request.search:
            print_text(
                f"the first of {request.search.trials} trials, which are asked for "
                f"{request.search.batch} at a time"
            )
        return 0
    try:
        complete = carry_out(request, args, args.route, args.restart, args.download)
    except KeyboardInterrupt:
        print_warning("stopped, and what ran was told to save; the same command goes on")
        return 130
    if complete is not None:  # else the engine wrote down what is to be run, no more
        finish(sweep, request.module, complete, args.metric)
    return 0

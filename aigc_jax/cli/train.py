"""Train in WORKDIR, or go on where a run there was cut off.

A finished run prints its table.
"""

import re
import signal

from aigc_jax.utils.errors import require
from aigc_jax.utils.terminal import print_text, print_warning


def add_arguments(parser):
    """Add the config, the work directory, and how to extend, restart or distribute."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a shipped config's name, or a Python file with get_config(); --config.KEY=VALUE "
        "sets a key, such as "
        "--config.hp.lr_g=1e-4 or --config.steps='10 epochs'",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="where everything is left; a run that lies there goes on",
    )
    parser.add_argument(
        "--extend",
        type=int,
        metavar="STEPS",
        help="go on to this many steps in all, with a schedule that does not depend on the end",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="remove the run that lies in DIR and begin again at step 0",
    )
    parser.add_argument("--download", action="store_true", help="fetch missing data")
    parser.add_argument(
        "--profile",
        default="",
        metavar="steps:A-B",
        help="trace these steps into WORKDIR/profile, for XProf and Perfetto",
    )
    parser.add_argument(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help="several processes train one run: where process 0 listens (found by itself under "
        "Slurm, Open MPI, Kubernetes and on TPU pods)",
    )
    parser.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    parser.add_argument("--process_id", type=int, metavar="I", help="which of them this is, from 0")


def run(args, overrides) -> int:
    """Train, or go on; the exit code says whether the run is finished, and whether it
    was told to stop.
    """
    from aigc_jax.core import distributed
    from aigc_jax.inference.train import train_run
    from aigc_jax.training.run_dir import RunDir

    steps = re.fullmatch(r"steps:(\d+)-(\d+)", args.profile)
    require(
        not args.profile or steps and 0 < int(steps[1]) <= int(steps[2]),
        f"--profile={args.profile} must be like steps:10-15",
    )
    status = train_run(
        args.config,
        args.workdir,
        overrides,
        extend=args.extend,
        restart=args.restart,
        download=args.download,
        profile=tuple(map(int, steps.groups())) if steps else (),
        processes=(args.coordinator, args.num_processes, args.process_id),
    )
    if status["status"] == "preempted":
        print_warning(f"preempted at step {status['step']:,} and saved; the same command goes on")
        return 128 + signal.Signals[status["signal"]]
    if distributed.first():
        report(RunDir(args.workdir))
    return 0


def report(run):
    """The last rows of each split, and where the pictures are."""
    from aigc_jax.utils.text_table import table

    rows = run.rows()
    last = {
        split: next((r for r in reversed(rows) if r["split"] == split), None)
        for split in ("train", "valid", "test")
    }
    names = list(
        dict.fromkeys(k for r in last.values() if r for k in r if k not in ("step", "split"))
    )
    lines = [(name, *(r.get(name) if r else None for r in last.values())) for name in names]
    status = run.read_json("STATUS.json")
    print_text(f"\n{run.path}: {status['step']:,} steps")
    print_text(table(lines, ("", *last)))
    if status.get("best"):
        print_text(
            f"best checkpoint: step {status['best']['step']:,}, "
            f"{run.config()['config']['best']} = {status['best']['value']:.4g}"
        )
    samples = sorted(p for p in (run / "samples").glob("*") if p.suffix in (".png", ".txt"))
    if samples:
        print_text(f"samples: {samples[-1]}")
    if (run / "curves.png").exists():
        print_text(f"curves:  {run / 'curves.png'}")

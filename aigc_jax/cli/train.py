"""Train in WORKDIR, or resume an interrupted run in it.

Prints the metrics of a finished run.
"""

import re
import signal
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from aigc_jax.utils.errors import require
from aigc_jax.utils.quantities import format_count, format_number
from aigc_jax.utils.terminal import print_table, print_text, print_warning

if TYPE_CHECKING:
    from aigc_jax.training.run_dir import RunDir


def add_arguments(parser: ArgumentParser) -> None:
    """Add the config, the work directory and how to extend, restart or distribute."""
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
        help="output directory; an unfinished run in it is resumed",
    )
    parser.add_argument(
        "--extend",
        type=int,
        metavar="STEPS",
        help="continue a run to this total number of steps; its schedule must not depend on the "
        "last step",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="delete the run in DIR and start again at step 0",
    )
    parser.add_argument("--download", action="store_true", help="download missing data")
    parser.add_argument(
        "--profile",
        default="",
        metavar="steps:A-B",
        help="write a trace of these steps to WORKDIR/profile, for XProf and Perfetto",
    )
    parser.add_argument(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help="multi-process training: the address at which process 0 listens (detected under "
        "Slurm, Open MPI, Kubernetes and on TPU pods)",
    )
    parser.add_argument("--num_processes", type=int, metavar="N", help="number of processes")
    parser.add_argument("--process_id", type=int, metavar="I", help="index of this process, from 0")


def run(args: Namespace, overrides: dict[str, str]) -> int:  # the exit code
    """Train or resume a run; return exit code 0, or 128 + the number of the signal that
    preempted it.
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
        print_warning(
            f"preempted at step {status['step']:,} and saved; the same command resumes the run"
        )
        return 128 + signal.Signals[status["signal"]]
    if distributed.is_primary():
        print_run_summary(RunDir(args.workdir))
    return 0


def print_run_summary(run_dir: "RunDir") -> None:
    """Print the last row of each split and the paths of samples and curves."""
    from aigc_jax.utils.text_table import Table

    rows = run_dir.read_rows()
    last = {
        split: next((r for r in reversed(rows) if r["split"] == split), None)
        for split in ("train", "valid", "test")
    }
    names = list(
        dict.fromkeys(k for r in last.values() if r for k in r if k not in ("step", "split"))
    )
    lines: list[tuple] = [
        (name, *(r.get(name) if r else None for r in last.values())) for name in names
    ]
    status = run_dir.read_status()
    print_text(f"\n{run_dir.path}: {format_count(status['step'], 'step')}")
    print_table(Table(("", *last), lines))
    if status.get("best"):
        print_text(
            f"best checkpoint: step {status['best']['step']:,}, "
            f"{run_dir.read_config_json()['config']['best_metric']} = "
            f"{format_number(status['best']['value'])}"
        )
    samples = sorted(p for p in (run_dir / "samples").glob("*") if p.suffix in (".png", ".txt"))
    if samples:
        print_text(f"samples: {samples[-1]}")
    if (run_dir / "curves.png").exists():
        print_text(f"curves:  {run_dir / 'curves.png'}")

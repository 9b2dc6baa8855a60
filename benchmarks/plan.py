"""The memory that `launch.py plan` foretells for one device, beside the most that the
process then takes, on CPUs.

    python benchmarks/plan.py [--config=gpt_base] [--batch_size=8]

The process compiles a training step, gives back what compiling left over, and only then
makes states and trains three steps: the growth of its resident memory from then to
its peak is compared. Linux only (/proc).
"""

import argparse
import ctypes
import gc
from pathlib import Path

HERE = Path(__file__).resolve().parent


def resident(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)
    )
    return 1024 * int(line.split()[1])


def measured(config) -> tuple[int, int]:
    """(foretold, measured) bytes."""
    import jax

    from aigc_jax.training import plan
    from aigc_jax.training.programs import Programs

    foretold = plan.make_plan(config).peak
    dataset, _ = plan.load_one_row_data(config)
    config = plan.resolve_for_plan(config, dataset)
    programs = Programs(config, dataset, 1)
    programs.start_compiling_training()
    programs.training.wait_for_executable()
    jax.block_until_ready(programs.init([config]))  # its program too is compiled before
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    states = programs.init([config])
    states, metrics = programs.train(states, 0, 3)
    jax.block_until_ready((states, metrics))
    return foretold, resident("VmHWM") - before


def main():
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="gpt_base", help="a file of configs/ (default: gpt_base)"
    )
    parser.add_argument("--batch_size", type=int, default=8, help="(default: 8)")
    args = parser.parse_args()
    config = config_files.load(HERE.parent / "configs" / f"{args.config}.py")
    foretold, found = measured(configs.override(config, {"batch_size": args.batch_size}))
    sizes = f"{foretold / 1e9:.3f} GB foretold, {found / 1e9:.3f} GB measured"
    print(f"{args.config}, batches of {args.batch_size}: {sizes}, {foretold / found - 1:+.1%}")


if __name__ == "__main__":
    main()

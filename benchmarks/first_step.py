"""Processor seconds of a new process until its first training step returns, and of a
run of few steps as a whole; of resuming it; and of sampling it.

Each process runs with empty caches (cold), then again with those that it filled (warm).
Prints one JSON line per config and round. Processor time is that of all threads, user
and system, which depends on the load of a machine less than wall time does.

  python benchmarks/first_step.py
  python benchmarks/first_step.py --configs gan_digits --steps 10 --rounds 3
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Config -> flags; a warm-up must be shorter than the run.
CONFIGS = {
    "gan_digits": (),
    "vae_mnist": (),
    "gpt_shakespeare_cpu": ("--config.schedule.warmup=0",),
}
# A command line whose first training step reports when its metrics are available.
CHILD = """
import json, resource, sys

def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def report(name):
    print(json.dumps({name: round(processor_seconds(), 2)}), flush=True)

from aigc_jax.cli.main import main

if sys.argv[1] == "train":
    import jax
    from aigc_jax.core.compilation_cache import enable_compilation_cache
    enable_compilation_cache()  # before jax and the programs are imported, as `main` does
    from aigc_jax.training.programs import Programs
    train, first = Programs.train, [True]

    def train_and_report(*args):
        out = train(*args)
        if first.pop() if first else False:
            jax.block_until_ready(out[1])
            report("first_step")
        return out

    Programs.train = train_and_report
code = main(sys.argv[1:])
report("total")
sys.exit(code)
"""


def measure(words: list[str], cache: str) -> dict[str, float]:  # {"first_step", "total"}
    """Return the processor seconds of a command line.

    Args:
      words: of the command line, from its verb on.
      cache: the directory of the user's caches.
    """
    unset = ("JAX_COMPILATION_CACHE_DIR", "PYTHONDONTWRITEBYTECODE", "AIGC_CACHE")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    out = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        env=environment | dict(XDG_CACHE_HOME=cache),
        capture_output=True,
        text=True,
        check=False,
    )
    if out.returncode:
        sys.exit(out.stderr)
    seconds: dict[str, float] = {}
    for line in out.stdout.splitlines():
        with contextlib.suppress(ValueError):
            seconds |= json.loads(line)
    return seconds


def measure_config(config: str, steps: int, cache: str, folder: Path) -> dict[str, dict]:
    """Return {what: processor seconds} of a run, its resumption and its samples."""
    words = ["train", f"--config={config}", f"--workdir={folder}", f"--config.steps={steps}"]
    words += CONFIGS.get(config, ())
    # A schedule that does not depend on the last step may be extended.
    words.append(f"--config.run.save_every={steps}")
    run = measure(words, cache)
    # Resumed from a checkpoint before the last step.
    half = folder.with_name(f"{folder.name}_half")
    words = [word.replace(str(folder), str(half)) for word in words]
    words[-1] = f"--config.run.save_every={max(steps // 2, 1)}"
    measure(words, cache)
    subprocess.run(["rm", "-r", str(half / "checkpoints" / str(steps))], check=True)
    resumed = measure(words, cache)
    kind = ".txt" if list(folder.glob("samples/*.txt")) else ".png"
    sample = measure(["sample", f"--workdir={folder}", f"--out={folder}/out{kind}"], cache)
    return dict(run=run, resumed=resumed, sample=sample)


def main() -> None:
    """Print the seconds of each config, cold and warm."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1, help="warm rounds after the cold one")
    args = parser.parse_args()
    for config in args.configs:
        with tempfile.TemporaryDirectory() as folder:
            for i in range(1 + args.rounds):
                seconds = measure_config(
                    config, args.steps, f"{folder}/cache", Path(folder) / f"run_{i}"
                )
                state = "warm" if i else "cold"
                print(json.dumps(dict(config=config, caches=state, **seconds)), flush=True)


if __name__ == "__main__":
    main()

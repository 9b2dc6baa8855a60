"""What it costs that batches come from the host instead of from the device:
milliseconds a step, in turns.

AIGC_DATA_DIR=DIRECTORY python benchmarks/feeds.py [--config=vae_mnist] [--steps=400]
"""

import argparse
import statistics
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5


def programs_of(name, place):
    from aigc_jax import data, methods
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.programs import Programs

    config = configs.override(
        config_files.load(ROOT / "configs" / f"{name}.py"),
        {"run.data_placement": place, "metrics": (), "best_metric": ""},
    )
    dataset = data.load(config.data, config.run.data_dir)
    config = configs.resolve_durations(
        config, dataset.spec.n_train, methods.examples_per_step(config)
    )
    programs = Programs(config, dataset, 1)
    return programs, programs.init([config])


def stretch(programs, states, step, count):
    """`count` steps after `step`, in as many calls as the loop would take."""
    import jax

    end = step + count
    while step < end:
        n = min(end - step, programs.feed.max_steps(step))
        states, _ = programs.train(states, step, n)
        step += n
    return jax.block_until_ready(states)


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--config", default="vae_mnist")
    arguments.add_argument("--steps", type=int, default=400, help="of a stretch")
    args = arguments.parse_args()
    sides = {place: programs_of(args.config, place) for place in ("device", "host")}
    times = {place: [] for place in sides}
    for i in range(ROUNDS + 1):  # the first warms up
        for place, (programs, states) in sides.items():
            begun = time.perf_counter()
            sides[place] = programs, stretch(programs, states, i * args.steps, args.steps)
            times[place].append(1000 * (time.perf_counter() - begun) / args.steps)
    for place, found in times.items():
        print(
            f"{args.config}, from the {place}: {statistics.median(found[1:]):.2f} ms a step "
            f"({min(found[1:]):.2f} - {max(found[1:]):.2f})"
        )


if __name__ == "__main__":
    main()

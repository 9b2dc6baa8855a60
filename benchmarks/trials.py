"""What many trials cost as one program: against processes, runs one after another, and
the same loop in PyTorch; and by route, model by model.

    pip install -r requirements.txt -r requirements-bench.txt -e .
    python benchmarks/trials.py end_to_end 64 trials of a small VAE (8 rates x 8 seeds),
                                           500 steps each, from start to finish
    python benchmarks/trials.py steady     milliseconds a step of N trials by each route
                                           over that of one trial; what `auto` takes
    python benchmarks/trials.py share      a trial's share of a step of N trials over
                                           its matrix products alone, one core a trial
    python benchmarks/trials.py against --checkout=DIRECTORY
                                           one program, and processes, beside those of
                                           another checkout, in turns

The VAE is `configs/vae_digits.py`, 64-200-10, batch 100, with one evaluation and one
sample sheet at the end. Processes are timed for a few and multiplied (the table says
so); everything else is run completely. PyTorch trains alone: no evaluation, samples or
files; its figure stands beside our training alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import turns

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

RATES = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2)
SEEDS, STEPS = 8, 500
QUIET = {
    "steps": STEPS,
    "run.eval_every": "never",
    "run.sample_every": "never",
    "run.save_every": "never",
    "run.log": (),
    "best_metric": "",
}
COLD, SHARED, TIMES = 8, 8, 5  # processes that are timed, and how often one program is


def words(**more):
    return [
        f"--config.{k}={v}"
        for k, v in (QUIET | {k.replace("__", "."): v for k, v in more.items()}).items()
    ]


def timed(command, **env):
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=os.environ | env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begun, done.stdout


def sweep(folder, name):
    """Seconds of one program with everything, and what its plan says. The compilation
    cache is the folder's.
    """
    grid = ["--grid", "hp.lr=" + ",".join(map(str, RATES)), f"--seeds={SEEDS}"]
    seconds, _ = timed(
        [
            ROOT / "launch.py",
            "sweep",
            f"--config={ROOT / 'configs/vae_digits.py'}",
            f"--workdir={folder / name}",
            *grid,
            *words(),
        ],
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    return seconds, json.loads(next((folder / name / "groups").glob("*/plan.json")).read_text())


def one(folder, i, **env):
    overrides = words(hp__lr=RATES[i % len(RATES)], seed=i // len(RATES))
    return timed(
        [
            ROOT / "launch.py",
            "train",
            f"--config={ROOT / 'configs/vae_digits.py'}",
            f"--workdir={folder / str(i)}",
            *overrides,
        ],
        **env,
    )[0]


def cold(folder):
    """Seconds of 64 processes in turn, each with an empty cache; COLD are timed."""
    seconds = (one(folder, i, XDG_CACHE_HOME=str(folder / f"cache_{i}")) for i in range(COLD))
    return sum(seconds) / COLD * len(RATES) * SEEDS


def shared(folder):
    """Seconds of 64 processes, one a core at a time, that share a compilation cache
    which is warm; from SHARED of them.
    """
    cache = dict(XDG_CACHE_HOME=str(folder / "cache"))
    one(folder, SHARED, **cache)
    begun, cores = time.perf_counter(), os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda i: one(folder, i, **cache), range(SHARED)))
    return (time.perf_counter() - begun) / SHARED * len(RATES) * SEEDS


def in_one_process(folder):
    """Seconds of 64 runs one after another in this process, a program each."""
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.train import train_configs

    base = configs.override(config_files.load(ROOT / "configs/vae_digits.py"), QUIET)
    begun, runs = time.perf_counter(), 8
    for i in range(runs):
        config = configs.override(base, {"hp.lr": RATES[i], "seed": i})
        train_configs([config], [folder / f"run_{i}"])
    return (time.perf_counter() - begun) / runs * len(RATES) * SEEDS


def group_of(name, count, **more):
    """(configs, dataset) of `count` trials."""
    from aigc_jax import data, methods
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    base = configs.override(
        config_files.load(ROOT / "configs" / f"{name}.py"),
        {"metrics": (), "best_metric": ""} | more,
    )
    dataset = data.load(base.data)
    resolved = configs.resolve_durations(
        base, dataset.spec.n_train, methods.examples_per_step(base)
    )
    return [configs.override(resolved, {"seed": i}) for i in range(count)], dataset


def training():
    """Seconds to decide on a route, compiling included, and of the training of all 64
    trials by it, once all that a run needs has been compiled.
    """
    import jax

    from aigc_jax.sweeps.route import choose_route
    from aigc_jax.training.evaluation import Evaluator

    configs, dataset = group_of("vae_digits", len(RATES) * SEEDS, steps=STEPS)
    begun = time.perf_counter()
    programs, plan = choose_route(configs, dataset, "auto")
    decided = time.perf_counter() - begun
    for _ in range(2):
        states = programs.init(configs)
        Evaluator(programs).evaluate(states, "valid", 2)
        programs.draw(states, "prior", 2)
        begun = time.perf_counter()
        jax.block_until_ready(programs.train(states, 0, STEPS))
        trained = time.perf_counter() - begun
    return decided, trained, plan


def pytorch():
    """Seconds of the same 64 trainings in PyTorch, one after another."""
    import numpy as np
    import torch
    from torch import nn
    from vae_step import pytorch_step

    grey = torch.from_numpy(np.random.RandomState(0).rand(1437, 64).astype(np.float32))
    begun = time.perf_counter()
    for i in range(len(RATES) * SEEDS):
        torch.manual_seed(i)
        encoder = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 20))
        decoder = nn.Sequential(nn.Linear(10, 200), nn.ReLU(), nn.Linear(200, 64))
        optimizer = torch.optim.Adam(
            [*encoder.parameters(), *decoder.parameters()], lr=RATES[i % 8], fused=True
        )
        for _ in range(STEPS):
            pytorch_step(
                encoder, decoder, optimizer, torch.bernoulli(grey[torch.randint(len(grey), (100,))])
            )
    return time.perf_counter() - begun


def part(name):
    """A measurement in a process of its own, whose thread pool disturbs none."""
    return json.loads(timed([__file__, "part", f"--part={name}"])[1].splitlines()[-1])


def call_in(checkout, function, *words):
    """The seconds that a function of this script in a checkout returns."""
    code = (
        f"import sys, trials; from pathlib import Path; found = trials.{function}("
        "Path(sys.argv[1]), *sys.argv[2:]); print(found[0] if isinstance(found, tuple) else found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=checkout / "benchmarks",
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def against(checkout):
    """One program with all files, and 64 processes, of this checkout and another."""
    roots = dict(ours=ROOT, other=checkout.resolve())
    times = {(side, what): [] for side in roots for what in ("cold", "warm", "alone", "shared")}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(TIMES):
            for side, root in roots.items():
                # The second sweep reads the programs that the first has compiled.
                for what in ("cold", "warm"):
                    here = Path(folder) / f"{side}_{i}"
                    times[side, what].append(call_in(root, "sweep", here, what))
        for what, function in (("alone", "cold"), ("shared", "shared")):
            for side, root in roots.items():
                here = Path(folder) / f"{side}_{what}"
                times[side, what].append(call_in(root, function, here))
    print(json.dumps({" ".join(key): seconds for key, seconds in times.items()}))
    print("| one program, 64 trials, all files | ours, s | other, s | ours / other | "
          "64 processes of ours | of the other |", "|---" * 6 + "|", sep="\n")  # fmt: skip
    for what, processes in (("cold", "alone"), ("warm", "shared")):
        own, other = (statistics.median(times[side, what]) for side in roots)
        ratios = (times[side, processes][0] / own for side in roots)
        cells = (f"{ratio:.1f} times" for ratio in ratios)
        print(f"| {what} cache | {own:.1f} | {other:.1f} | {own / other:.2f} | "
              f"{' | '.join(cells)} |")  # fmt: skip


def end_to_end():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # Each sweep has a compilation cache of its own.
        colds = [sweep(folder / str(i), "cold") for i in range(TIMES)]
        ours, plan = statistics.median(seconds for seconds, _ in colds), colds[0][1]
        warm = statistics.median(sweep(folder / "0", f"warm_{i}")[0] for i in range(TIMES))
        decided, trained, _ = part("training")
        rows = {
            f"one program ({plan['route']} over {plan['devices']} cores), all files, "
            "nothing compiled before": (
                ours,
                ours,
                f"median of {TIMES}",
            ),
            "of that: a route decided on, compiling included": (decided, None, ""),
            "of that: training": (trained, None, ""),
            "64 processes one after another, nothing compiled before": (
                cold(folder / "cold_runs"),
                ours,
                f"{COLD} timed",
            ),
            "64 runs in one process": (part("in_one_process"), ours, "8 timed"),
            "one program, all files, a warm compilation cache": (warm, warm, f"median of {TIMES}"),
            "64 processes, one a core, a warm compilation cache": (
                shared(folder / "shared_runs"),
                warm,
                f"{SHARED} timed",
            ),
            "one program, training alone": (trained, trained, ""),
            "PyTorch, one after another, training alone": (part("pytorch"), trained, ""),
        }
    print(
        "| 64 trials of a small VAE, 500 steps | seconds | over one program | |",
        "|---|---|---|---|",
        sep="\n",
    )
    for name, (seconds, reference, note) in rows.items():
        print(
            f"| {name} | {seconds:.1f} | "
            f"{f'{seconds / reference:.1f}' if reference else ''} | {note} |"
        )


# name -> (config, trials, overrides): small enough for two cores, with what the config
# would do otherwise
CASES = {
    "VAE 64-200-10, digits": ("vae_digits", 64, {}),
    "MLP GAN, ring": ("gan_ring", 16, {}),
    "MLP GAN, digits": ("gan_digits", 16, {}),
    "GPT 4 x 128": ("gpt_shakespeare_cpu", 4, {"data.name": "pydoc", "data.split": "80/10/10"}),
    "LSTM 1 x 384": ("rnn_pydoc", 4, {"model.cell": "lstm", "model.width": 384}),
    "DCGAN, digits": ("dcgan_digits", 4, {}),
}


def steady():
    from aigc_jax.core import mesh
    from aigc_jax.sweeps.route import choose_route, measure_step_seconds
    from aigc_jax.training.programs import Programs

    print(
        "| model | trials | one, ms a step | vmap | map | vmap, cores | map, cores | `auto` "
        "takes | over the best |",
        "|---" * 9 + "|",
        sep="\n",
    )
    for name, (config, count, more) in CASES.items():
        configs, dataset = group_of(config, count, **more)
        timings, cores = {}, min(count, os.cpu_count())
        for label, route, n, parts in (
            ("one", "map", 1, 1),
            *((r + f"{p}", r, count, p) for p in (1, cores) for r in ("vmap", "map")),
        ):
            shape = mesh.make_mesh(dict(trial=parts, data=1))
            programs = Programs(configs[0], dataset, n, shape, route=route)
            programs.start_compiling_training()
            seconds = (measure_step_seconds(programs, configs[:n], float("inf")) for _ in range(4))
            timings[label] = min(seconds)
        plan = choose_route(configs, dataset, "auto")[1]
        choice = f"{plan['route']}{plan['devices']}"
        ratios = " | ".join(
            f"{timings[label] / timings['one']:.2f}" for label in timings if label != "one"
        )
        worse = timings[choice] / min(value for label, value in timings.items() if label != "one")
        print(
            f"| {name} | {count} | {1000 * timings['one']:.2f} | {ratios} | {plan['route']}, "
            f"cores | {worse:.2f} |",
            flush=True,
        )


def make_group(case):
    """A function of n steps of all trials of a case, one core a trial."""
    import jax

    from aigc_jax.core import mesh
    from aigc_jax.training.programs import Programs

    config, count, more = CASES[case]
    configs, dataset = group_of(config, count, **more)
    shape = mesh.make_mesh(dict(trial=os.cpu_count(), data=1))
    programs = Programs(configs[0], dataset, count, shape, route="map")
    state = [programs.init(configs)]

    def steps(n):
        state[0], metrics = programs.train(state[0], 0, n)
        jax.block_until_ready((state[0], metrics))

    return steps


def make_products(case):
    """A function of n times the products of one trial's step, on one core."""
    import limits

    from aigc_jax.training.programs import Programs

    config, _, more = CASES[case]
    configs, dataset = group_of(config, 1, **more)
    return limits.limit(configs[0], Programs(configs[0], dataset, 1, route="map"))


SHARES = dict(group=make_group, products=make_products)


def share():
    print(
        "| model | trials | a step of all, ms | a trial's share, ms | its products alone, ms | "
        "share / products |",
        "|---" * 6 + "|",
        sep="\n",
    )
    for case, (_, count, _) in CASES.items():
        times = turns.compare(__file__, case, SHARES, 5, 2.0)
        step, products = (statistics.median(times[side]) for side in SHARES)
        own = step * os.cpu_count() / count
        print(
            f"| {case} | {count} | {step:.2f} | {own:.3f} | {products:.3f} | "
            f"{own / products:.2f} |",
            flush=True,
        )


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = dict(end_to_end=end_to_end, steady=steady, share=share)
    arguments.add_argument("what", nargs="?", choices=(*whole, "against", "part"))
    arguments.add_argument("--checkout", type=Path, metavar="DIRECTORY", help="of `against`")
    arguments.add_argument(
        "--part", choices=("training", "in_one_process", "pytorch"), help=argparse.SUPPRESS
    )
    arguments.add_argument("--side", choices=SHARES, help=argparse.SUPPRESS)
    arguments.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.side == "products":
        os.sched_setaffinity(0, {0})
        return turns.worker(make_products(args.case), args.seconds)
    # Devices as a group of a sweep has them, set before jax starts.
    if args.side or args.what == "steady" or args.part in ("training", "pytorch"):
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.cpu_count()}"
    if args.side:
        return turns.worker(make_group(args.case), args.seconds)
    if args.what is None:
        arguments.error(f"name one of {', '.join(whole)}, against")
    if args.what == "against" and args.checkout is None:
        arguments.error("against needs --checkout=DIRECTORY")
    if args.what == "part":
        if args.part == "in_one_process":
            with tempfile.TemporaryDirectory() as folder:
                value = in_one_process(Path(folder))
        else:
            value = dict(training=training, pytorch=pytorch)[args.part]()
        print(json.dumps(value))
    else:
        against(args.checkout) if args.what == "against" else whole[args.what]()


if __name__ == "__main__":
    main()

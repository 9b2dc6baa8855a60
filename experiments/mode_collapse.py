"""What mode collapse looks like on the ring, the grid and stacked MNIST, and what cures it there.

    python experiments/mode_collapse.py --workdir=runs/collapse [--only=ring,grid]    trains what is not there
    python experiments/mode_collapse.py                                               table and figure from the rows here

One game on each, configs/gan_ring.py with its networks and rates on ring and grid, configs/gan_stacked_mnist.py, and each of REMEDIES by itself
added to it, untuned. The seeds of each are one program. Measures are of the last step, on samples of the generator as it is, unaveraged.
"""

import argparse
import functools
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "mode_collapse"
SEEDS = 3
SHOWN = 300  # samples of seed 0 that rows hold, to be drawn

REMEDIES = {
    "nothing": ({}, {}),
    "packs of 3": ({"game.pack": 3}, {}),
    "unrolled 5": ({"game.unroll": 5}, {}),
    "minibatch deviation": ({}, {"model.d.minibatch_std": True}),
    "gradient penalty": ({"game.regularizers": ("gradient_penalty",)}, {"hp.gradient_penalty": 1.0}),
    "R1": ({"game.regularizers": ("r1",)}, {"hp.r1": 1.0}),
    "spectral norm": ({}, {"model.d.spectral": True}),
    "Wasserstein, clipped": ({"game.regularizers": ("weight_clipping",), "loss": "wasserstein"}, {"hp.weight_clipping": 0.1}),
}
# data -> (config, changes, remedies that are tried)
POINTS = {"steps": "6000 steps", "hp.ema": 0.0, "metrics": ("modes",), "run.eval_every": "6000 steps", "run.save_every": "6000 steps",
          "run.sample_every": "6000 steps", "run.tensorboard": False}  # fmt: skip
DATA = {
    "ring": ("gan_ring", POINTS, tuple(REMEDIES)),
    "grid": ("gan_ring", POINTS | {"data.name": "grid"}, tuple(REMEDIES)),
    "stacked": ("gan_stacked_mnist", {"run.tensorboard": False}, ("nothing", "packs of 3", "minibatch deviation", "R1")),
}
MODES = dict(ring=8, grid=25, stacked=1000)


def config_of(data, remedy):
    """A config of DATA with a remedy, whose keys it may not have yet."""
    from aigc_jax import config as configs

    file, changes, _ = DATA[data]
    known, new = REMEDIES[remedy]
    raw = configs.load(HERE.parent / "configs" / f"{file}.py").to_dict()
    for key, value in new.items():
        *parents, last = key.split(".")
        functools.reduce(dict.__getitem__, parents, raw)[last] = value
    return configs.override(configs.complete(configs.ConfigDict(raw)), changes | known)


def trained(data, remedy, workdir) -> list[dict]:
    """The rows of a remedy's seeds: their measures, and of the first its samples where they are points."""
    import aigc_jax
    from aigc_jax import config as configs
    from aigc_jax.train import train

    folder = Path(workdir, data, remedy.replace(" ", "_"))
    seeds = SEEDS if data != "stacked" else 1
    given = [configs.override(config_of(data, remedy), {"seed": seed}) for seed in range(seeds)]
    dirs = [folder / str(seed) for seed in range(seeds)]
    train(given, dirs, group=folder / "group")
    rows = []
    for seed, place in enumerate(dirs):
        run = aigc_jax.load(place)
        names = ("stacked_modes", "stacked_kl") if data == "stacked" else ("modes", "high_quality", "reverse_kl")
        last = run.rows("test")[-1]
        modes, quality, kl = (last.get(name) for name in (names[0], "high_quality", names[-1]))
        rows.append(dict(data=data, remedy=remedy, seed=seed, modes=modes, high_quality=quality, kl=kl, x=None, y=None))
    if data != "stacked":
        nothing = dict.fromkeys(("modes", "high_quality", "kl"))
        for x, y in aigc_jax.load(dirs[0]).sample(SHOWN):
            rows.append(dict(data=data, remedy=remedy, seed=0) | nothing | dict(x=round(float(x), 3), y=round(float(y), 3)))
    return rows


def measured(rows, data, remedy, name) -> np.ndarray:
    return np.array([row[name] for row in rows if (row["data"], row["remedy"]) == (data, remedy) and row[name] is not None], float)


def spread(x, digits) -> str:
    if not len(x):
        return ""
    return f"{x.mean():.{digits}f}" + (f" ± {x.std(ddof=1) / len(x) ** 0.5:.{digits}f}" if len(x) > 1 else "")


def table(rows) -> str:
    head = [f"{data}: modes of {MODES[data]:,} | high quality, % | reverse KL" for data in ("ring", "grid")] + ["stacked MNIST: modes of 1,000 | KL"]
    lines = ["| added | " + " | ".join(head) + " |", "|---" * 9 + "|"]
    for remedy in REMEDIES:
        cells = []
        for data in ("ring", "grid"):
            cells += [spread(measured(rows, data, remedy, "modes"), 1), spread(100 * measured(rows, data, remedy, "high_quality"), 0),
                      spread(measured(rows, data, remedy, "kl"), 2)]  # fmt: skip
        cells += [spread(measured(rows, "stacked", remedy, "modes"), 0), spread(measured(rows, "stacked", remedy, "kl"), 2)]
        lines.append(f"| {remedy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for line, data in zip(axes, ("ring", "grid"), strict=True):
        for ax, remedy in zip(line, REMEDIES, strict=True):
            ax.scatter(measured(rows, data, remedy, "x"), measured(rows, data, remedy, "y"), s=1, color="tab:blue")
            reach = 1.5 if data == "ring" else 5.5
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal")
            ax.set_title(f"{remedy}\n{spread(measured(rows, data, remedy, 'modes')[:1], 0)} of {MODES[data]}", fontsize=7)


def render(rows):
    """table.md and figure.png; two lines of panels."""
    from aigc_jax import evidence

    def draw(axes):
        drawing = axes.figure
        drawing.clf()
        figure(rows, drawing.subplots(2, len(REMEDIES)))

    evidence.render(RESULTS, table(rows), draw, (12, 3.8))


def main():
    from aigc_jax import evidence

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", help="where the runs are left; what is there already is not trained again")
    parser.add_argument("--only", default=",".join(DATA), help="which data; the rows of the others stay (default: all)")
    args = parser.parse_args()
    if args.workdir:
        chosen, before = args.only.split(","), evidence.read_rows(RESULTS) if (RESULTS / "rows.csv").is_file() else []
        new = [row for data in chosen for remedy in DATA[data][2] for row in trained(data, remedy, args.workdir)]
        rows = [row for row in before if row["data"] not in chosen] + new
        evidence.write_rows(RESULTS, rows, Path(args.workdir, chosen[0], "nothing", "0", "environment.json"))
    render(evidence.read_rows(RESULTS))


if __name__ == "__main__":
    main()

"""What mode collapse looks like on the ring and the grid, and what cures it there.

    python experiments/mode_collapse.py --workdir=runs/collapse [--only=ring,grid]    trains what is not there
    python experiments/mode_collapse.py                                               table and figure from the rows here

One game on each, that of configs/gan_ring.py, and each of REMEDIES by itself added to it, untuned. The seeds of each are one program. Measures
are of the last step, on samples of the generator as it is, unaveraged.
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
NAMES = ("modes", "high_quality", "reverse_kl")
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
POINTS = {"steps": "6000 steps", "hp.ema": 0.0, "metrics": ("modes",), "run.eval_every": "6000 steps", "run.save_every": "6000 steps",
          "run.sample_every": "6000 steps", "run.tensorboard": False}  # fmt: skip
MODES = dict(ring=8, grid=25)


def config_of(data, remedy):
    """The game on `data` with a remedy, whose keys its config may not have yet."""
    from aigc_jax import config as configs

    known, new = REMEDIES[remedy]
    raw = configs.load(HERE.parent / "configs" / "gan_ring.py").to_dict()
    for key, value in new.items():
        *parents, last = key.split(".")
        functools.reduce(dict.__getitem__, parents, raw)[last] = value
    return configs.override(configs.complete(configs.ConfigDict(raw)), POINTS | {"data.name": data} | known)


def trained(data, remedy, workdir) -> list[dict]:
    """The rows of a remedy's seeds: their measures, and of the first some samples."""
    import aigc_jax
    from aigc_jax import config as configs
    from aigc_jax.train import train

    folder = Path(workdir, data, remedy.replace(" ", "_"))
    given = [configs.override(config_of(data, remedy), {"seed": seed}) for seed in range(SEEDS)]
    dirs = [folder / str(seed) for seed in range(SEEDS)]
    train(given, dirs, group=folder / "group")
    rows = []
    for seed, place in enumerate(dirs):
        last = aigc_jax.load(place).rows("test")[-1]
        rows.append(dict(data=data, remedy=remedy, seed=seed) | {name: last[name] for name in NAMES} | dict(x=None, y=None))
    for x, y in aigc_jax.load(dirs[0]).sample(SHOWN):
        rows.append(dict(data=data, remedy=remedy, seed=0) | dict.fromkeys(NAMES) | dict(x=round(float(x), 3), y=round(float(y), 3)))
    return rows


def measured(rows, data, remedy, name) -> np.ndarray:
    return np.array([row[name] for row in rows if (row["data"], row["remedy"]) == (data, remedy) and row[name] is not None], float)


def spread(x, digits) -> str:
    if not len(x):
        return ""
    return f"{x.mean():.{digits}f}" + (f" ± {x.std(ddof=1) / len(x) ** 0.5:.{digits}f}" if len(x) > 1 else "")


def table(rows) -> str:
    head = [f"{data}: modes of {modes} | high quality, % | reverse KL" for data, modes in MODES.items()]
    lines = ["| added | " + " | ".join(head) + " |", "|---" * 7 + "|"]
    for remedy in REMEDIES:
        cells = []
        for data in MODES:
            cells += [spread(measured(rows, data, remedy, "modes"), 1), spread(100 * measured(rows, data, remedy, "high_quality"), 0),
                      spread(measured(rows, data, remedy, "reverse_kl"), 2)]  # fmt: skip
        lines.append(f"| {remedy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for line, data in zip(axes, MODES, strict=True):
        for ax, remedy in zip(line, REMEDIES, strict=True):
            ax.scatter(measured(rows, data, remedy, "x"), measured(rows, data, remedy, "y"), s=1, color="tab:blue")
            reach = 1.5 if data == "ring" else 5.5
            ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal")
            ax.set_title(f"{remedy}\n{spread(measured(rows, data, remedy, 'modes')[:1], 0)} of {MODES[data]}", fontsize=7)


def main():
    from aigc_jax import evidence
    from aigc_jax.errors import UserError, choose

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", help="where the runs are left; what is there already is not trained again")
    parser.add_argument("--only", default=",".join(MODES), help="which data; the rows of the others stay (default: all)")
    args = parser.parse_args()
    if args.workdir:
        try:
            chosen = [name for name in args.only.split(",") if choose(MODES, name, "--only")]
            new = [row for data in chosen for remedy in REMEDIES for row in trained(data, remedy, args.workdir)]
        except UserError as e:
            parser.error(str(e))
        evidence.replace_rows(RESULTS, "data", new, Path(args.workdir, chosen[0], "nothing", "0", "environment.json"))
    rows = evidence.read_rows(RESULTS)
    evidence.render(RESULTS, table(rows), lambda axes: figure(rows, axes), (12, 3.8), (2, len(REMEDIES)))


if __name__ == "__main__":
    main()

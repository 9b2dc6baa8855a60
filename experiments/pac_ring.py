"""Does a discriminator that judges several examples at once keep a generator from collapsing? PacGAN's ring, beside its table 1.

    python launch.py sweep  --experiment=experiments/pac_ring.py --workdir=runs/pac_ring
    python launch.py figure --experiment=experiments/pac_ring.py

The recipe of Lin et al. 2018, section 4.1 (configs/gan_pac_ring.py), for a fortieth of its 400,000 steps: packs of one, two, three and four, the
seeds of each as one program. Modes of 8, high-quality samples, reverse KL in nats, of 2,500 samples each.
"""

from pathlib import Path

import numpy as np

from aigc_jax.grid import product, seeds, values

CONFIG = "configs/gan_pac_ring.py"
PACKS, SEEDS = (1, 2, 3, 4), 4
OVERRIDES = {"steps": "10000 steps", "run.eval_every": "1000 steps", "run.save_every": "5000 steps", "run.tensorboard": False}
RESULTS = Path(__file__).resolve().parent / "results" / "pac_ring"
METRIC = "test/reverse_kl"
VARIED = ("game.pack",)
PANELS, SIZE = (1, 3), (11, 3.4)
NAMES = dict(modes="modes of 8", high_quality="high quality, %", reverse_kl="reverse KL, nats")
# Lin et al. 2018, table 1: mean and standard error of ten trials of 400,000 steps
REFERENCE = {
    1: dict(modes=(6.3, 0.5), high_quality=(98.2, 0.2), reverse_kl=(0.45, 0.09)),
    2: dict(modes=(7.9, 0.1), high_quality=(95.6, 2.0), reverse_kl=(0.07, 0.03)),
    3: dict(modes=(7.8, 0.1), high_quality=(97.7, 0.3), reverse_kl=(0.10, 0.02)),
    4: dict(modes=(7.8, 0.1), high_quality=(95.9, 1.4), reverse_kl=(0.07, 0.02)),
}


def sweep():
    return product(values("game.pack", *PACKS), seeds(SEEDS))


def of(rows, pack, name, split="test", step=None) -> np.ndarray:  # [SEEDS]
    """A value of every trial of a pack; of a step, or of the only row of the split."""
    scale = 100 if name == "high_quality" else 1
    found = [row for row in rows if row["split"] == split and row["game.pack"] == pack and step in (None, row["step"])]
    return scale * np.array([row[name] for row in found])


def table(rows) -> str:
    digits = dict(modes=1, high_quality=1, reverse_kl=2)
    lines = ["| pack | " + " | ".join(f"{name} | table 1" for name in NAMES.values()) + " |", "|---" * 7 + "|"]
    for pack in PACKS:
        cells = []
        for name, n in digits.items():
            ours, (mean, error) = of(rows, pack, name), REFERENCE[pack][name]
            cells += [f"{ours.mean():.{n}f} ± {ours.std(ddof=1) / len(ours) ** 0.5:.{n}f}", f"{mean} ± {error}"]
        lines.append(f"| {pack} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    steps = sorted({row["step"] for row in rows if row["split"] == "valid"})
    for ax, (name, label) in zip(axes, NAMES.items(), strict=True):
        for i, pack in enumerate(PACKS):
            curve = np.array([of(rows, pack, name, "valid", step) for step in steps])
            mean, error = curve.mean(1), curve.std(1, ddof=1) / curve.shape[1] ** 0.5
            ax.plot(steps, mean, color=f"C{i}", label=f"packs of {pack}")
            ax.fill_between(steps, mean - error, mean + error, color=f"C{i}", alpha=0.2, linewidth=0)
            ax.axhline(REFERENCE[pack][name][0], color=f"C{i}", linestyle=":", linewidth=1)
        ax.set(xlabel="steps", ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].set(ylim=(0, 8.3))
    axes[0].legend(fontsize=7)
    axes[1].set(title="dotted: table 1, after 400,000 steps")

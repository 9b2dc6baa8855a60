"""Does a discriminator that judges several examples at once keep a generator from
collapsing? PacGAN's ring, beside its table 1.

    python launch.py sweep  --experiment=pac_ring --workdir=runs/pac_ring
    python launch.py figure --experiment=pac_ring

The recipe of Lin et al. 2018, section 4.1 (configs/gan_pac_ring.py), with all 400,000
steps: packs of one, two, three and four, the seeds of each as one program. Modes of 8,
high-quality samples, reverse KL in nats, of 2,500 samples each. The authors' program
has a generator of four hidden layers where the paper says two: packs of one and two
with four, for a quarter of the steps. 3.2 hours on 2 CPU cores with --route=map (by the
steps a second of timings.jsonl; measured 2026-11).
"""

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment
from aigc_jax.sweeps.grid import chain, product, seeds, values

PACKS, SEEDS, STEPS = (1, 2, 3, 4), 2, 400_000
DEEP_PACKS, QUARTER = (1, 2), 100_000
DEEP = {"model.g.widths": (400, 400, 400, 400), "steps": f"{QUARTER} steps"}

NAMES = dict(modes="modes of 8", high_quality="high quality, %", reverse_kl="reverse KL, nats")
# Lin et al. 2018, table 1: mean and standard error of ten trials of 400,000 steps
REFERENCE = {
    1: dict(modes=(6.3, 0.5), high_quality=(98.2, 0.2), reverse_kl=(0.45, 0.09)),
    2: dict(modes=(7.9, 0.1), high_quality=(95.6, 2.0), reverse_kl=(0.07, 0.03)),
    3: dict(modes=(7.8, 0.1), high_quality=(97.7, 0.3), reverse_kl=(0.10, 0.02)),
    4: dict(modes=(7.8, 0.1), high_quality=(95.9, 1.4), reverse_kl=(0.07, 0.02)),
}


def sweep():
    return chain(
        product(values("gan.pack", *PACKS), seeds(SEEDS)),
        product([DEEP], values("gan.pack", *DEEP_PACKS), seeds(SEEDS)),
    )


def layers(row) -> int:
    """Hidden layers of a row's generator, whose widths are written as a tuple."""
    return row["model.g.widths"].count(",") + 1


def of(rows, depth, pack, name, step) -> np.ndarray:  # [SEEDS]
    """A value of every trial of a pack at a step."""
    scale = 100 if name == "high_quality" else 1
    found = [
        row
        for row in rows
        if row["split"] == "valid"
        and layers(row) == depth
        and row["gan.pack"] == pack
        and row["step"] == step
    ]
    return scale * np.array([row[name] for row in found])


def table(rows) -> str:
    digits = dict(modes=1, high_quality=1, reverse_kl=2)
    lines = [
        "| hidden layers of G | steps | pack | "
        + " | ".join(f"{name} | table 1" for name in NAMES.values())
        + " |",
        "|---" * 9 + "|",
    ]
    kinds = [(2, STEPS, pack) for pack in PACKS] + [
        (depth, QUARTER, pack) for depth in (2, 4) for pack in DEEP_PACKS
    ]
    for depth, step, pack in kinds:
        cells = []
        for name, n in digits.items():
            ours, (mean, error) = of(rows, depth, pack, name, step), REFERENCE[pack][name]
            cells += [
                f"{ours.mean():.{n}f} ± {ours.std(ddof=1) / len(ours) ** 0.5:.{n}f}",
                f"{mean:.{n}f} ± {error:.{n}f}" if step == STEPS else "",
            ]
        lines.append(f"| {depth} | {step:,} | {pack} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for ax, (name, label) in zip(axes, NAMES.items(), strict=True):
        for depth, packs, line in ((2, PACKS, "-"), (4, DEEP_PACKS, "--")):
            steps = sorted(
                {row["step"] for row in rows if row["split"] == "valid" and layers(row) == depth}
            )
            for pack in packs:
                curve = np.array([of(rows, depth, pack, name, step) for step in steps])
                mean, error = curve.mean(1), curve.std(1, ddof=1) / curve.shape[1] ** 0.5
                ax.plot(
                    steps,
                    mean,
                    color=f"C{pack - 1}",
                    linestyle=line,
                    label=f"packs of {pack}" + ", four layers" * (depth == 4),
                )
                ax.fill_between(
                    steps, mean - error, mean + error, color=f"C{pack - 1}", alpha=0.15, linewidth=0
                )
        for pack in PACKS:
            ax.axhline(REFERENCE[pack][name][0], color=f"C{pack - 1}", linestyle=":", linewidth=1)
        ax.set(xlabel="steps", ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].set(ylim=(0, 8.3))
    axes[0].legend(fontsize=7)
    axes[1].set(title="dotted: table 1, after 400,000 steps")


def make_claim(pack, name) -> Claim:
    """A number of table 1, whose trials have a standard deviation of error * 10^0.5;
    ours are SEEDS of them. Reproduced: within two standard errors of the difference.
    """
    mean, error = REFERENCE[pack][name]
    return Claim(
        what=f"packs of {pack}: {NAMES[name]}",
        source="Lin et al. 2018, table 1",
        published=mean,
        values=lambda rows: of(rows, 2, pack, name, STEPS),
        tolerance=2 * error * (1 + 10 / SEEDS) ** 0.5,
        setting="the networks are updated in turn",
    )


EXPERIMENT = Experiment(
    claims=tuple(make_claim(pack, name) for pack in PACKS for name in NAMES),
    config="configs/gan_pac_ring.py",
    overrides={"run.sample_every": "never", "run.log": ()},
    sweep=sweep,
    table=table,
    figure=figure,
    caption="Bands, and ± of the table: standard error, n = 2 seeds (of table 1: n = 10).",
    metric="test/reverse_kl",
    panels=(1, 3),
    size=(12, 3.6),
)

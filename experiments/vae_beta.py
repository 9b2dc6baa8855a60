"""Rate against distortion of a beta-VAE: what the weight of the KL divergence buys, 12
weights x 5 seeds as one program.

    python launch.py sweep  --experiment=vae_beta --workdir=runs/beta
    python launch.py figure --experiment=vae_beta

The rate is KL(q(z | x) || p(z)), the distortion -E log p(x | z), in nats of the test
split (Higgins et al. 2017, eq. 4; Alemi et al. 2018, figure 2): their sum is the
negative ELBO, so that lines of one ELBO have slope -1, and the best is where the
curve has that slope: at beta = 1.
"""

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment
from aigc_jax.sweeps.grid import product, seeds, values

BETAS, SEEDS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0), 5


def sweep():
    return product(values("hp.beta", *BETAS), seeds(SEEDS))


def final(rows, name) -> np.ndarray:  # [BETAS, SEEDS]
    """A value of the test split of every trial."""
    return np.array(
        [
            [row[name] for row in rows if row["split"] == "test" and row["hp.beta"] == beta]
            for beta in BETAS
        ]
    )


def table(rows) -> str:
    error = lambda x: f"{x.mean():.1f} ({x.std(ddof=1) / len(x) ** 0.5:.2f})"
    names = ("kl", "reconstruction", "neg_elbo", "active_units")
    lines = [
        "| beta | rate, nats | distortion, nats | negative ELBO | active units of 20 |",
        "|---" * 5 + "|",
    ]
    for i, beta in enumerate(BETAS):
        lines.append(f"| {beta:g} | {' | '.join(error(final(rows, name)[i]) for name in names)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    rate, distortion, active = (
        final(rows, name) for name in ("kl", "reconstruction", "active_units")
    )
    best = final(rows, "neg_elbo").mean(1).min()
    axes[0].plot(
        rate.mean(1), distortion.mean(1), color="tab:blue", marker="o", markersize=4, linewidth=1
    )
    axes[0].plot(rate, distortion, ".", color="tab:blue", alpha=0.3, markersize=3)
    for i, beta in enumerate(BETAS):
        axes[0].annotate(
            f"{beta:g}",
            (rate.mean(1)[i], distortion.mean(1)[i]),
            textcoords="offset points",
            xytext=(5, 4),
            fontsize=7,
        )
    x = np.linspace(0, best, 2)
    axes[0].plot(x, best - x, ":", color="black", linewidth=1, label=f"negative ELBO = {best:.1f}")
    axes[0].set(
        xlabel="rate KL(q || p), nats",
        ylabel="distortion -log p(x | z), nats",
        title="weights beta, test split",
    )
    axes[0].set(xlim=(0, None), ylim=(0, None))
    axes[0].legend(fontsize=8)
    axes[1].errorbar(
        BETAS,
        active.mean(1),
        active.std(1, ddof=1),
        marker="o",
        markersize=4,
        color="tab:green",
        linewidth=1,
        capsize=2,
    )
    axes[1].set(xscale="log", xlabel="beta", ylabel="active units of 20", ylim=(0, 21))
    for ax in axes:
        ax.grid(alpha=0.3)


CLAIMS = (
    Claim(
        what="weight of the KL divergence with the lowest negative ELBO",
        source="theory: at beta = 1 the objective is the ELBO",
        published=1.0,
        values=lambda rows: [BETAS[final(rows, "neg_elbo").mean(1).argmin()]],
        tolerance=0.5,
        digits=1,
    ),
)

EXPERIMENT = Experiment(
    claims=CLAIMS,
    config="configs/vae_mnist.py",
    overrides={
        "model.widths": ((200,),),
        "steps": "5 epochs",
        "run.sample_every": "never",
        "run.save_every": "never",
        "run.log": (),
    },
    sweep=sweep,
    table=table,
    figure=figure,
    caption="Table: standard error in parentheses, n = 5 seeds. Bars: standard deviation.",
    metric="test/neg_elbo",
    panels=(1, 2),
    size=(9, 4),
)

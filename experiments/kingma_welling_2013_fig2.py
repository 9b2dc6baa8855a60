"""Kingma & Welling 2013, figure 2 (MNIST): the likelihood bound against training
samples seen, for five sizes of the latent space.

    python launch.py sweep  --experiment=kingma_welling_2013_fig2 --workdir=runs/kw
    python launch.py figure --experiment=kingma_welling_2013_fig2

The first line trains five programs of five seeds each; the second draws table and
figure from the committed rows.

As in the paper: 500 tanh units, minibatches of 100, one draw, Adagrad; to 10^6 samples
of the 10^8 that they show. Unlike it: one step size (0.02), LeCun's initialization
without weight decay, black and white pixels drawn anew each time, and held-out means
the valid split, so that our bounds are not theirs to compare nat by nat. What the
figure says is that more latents do not overfit: held-out bounds stay with those of
training.
"""

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment
from aigc_jax.sweeps.grid import product, seeds, values

SIZES, SEEDS = (3, 5, 10, 20, 200), 5
BATCH, WINDOW = 100, 10  # examples a step; training rows that one point of its curve is the mean of


def sweep():
    return product(values("latent_dims", *((n,) for n in SIZES)), seeds(SEEDS))


def size_of(row) -> int:
    return int(str(row["latent_dims"]).strip("(),"))


def curves(rows, n):
    """Samples seen and the bound of every seed, [points, SEEDS] each: of training
    (means of windows of its rows), and held out.
    """
    own = [row for row in rows if size_of(row) == n]
    trials = sorted({row["trial"] for row in own})
    pick = lambda split, name: (
        np.array(
            [
                [
                    row[name]
                    for row in own
                    if row["trial"] == t and row["split"] == split and row["step"]
                ]
                for t in trials
            ]
        ).T
    )
    steps = lambda split: np.array(
        [
            row["step"]
            for row in own
            if row["trial"] == trials[0] and row["split"] == split and row["step"]
        ]
    )
    train = -pick("train", "loss")
    train = train[: len(train) // WINDOW * WINDOW].reshape(-1, WINDOW, len(trials)).mean(1)
    at = steps("train")[: len(train) * WINDOW].reshape(-1, WINDOW)[:, -1]
    return (BATCH * at, train), (BATCH * steps("valid"), -pick("valid", "neg_elbo"))


def final(rows, n) -> tuple[np.ndarray, np.ndarray]:
    """The bound of every seed at the end: of the last training window, and held out."""
    (_, train), (_, valid) = curves(rows, n)
    return train[-1], valid[-1]


def table(rows) -> str:
    error = lambda x: f"{x.mean():.1f} ({x.std(ddof=1) / len(x) ** 0.5:.2f})"
    lines = ["| latents | bound of training, nats | held out | difference |", "|---|---|---|---|"]
    for n in SIZES:
        train, valid = final(rows, n)
        lines.append(f"| {n} | {error(train)} | {error(valid)} | {error(train - valid)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for ax, n in zip(axes, SIZES, strict=True):
        for (samples, bound), style, label in zip(
            curves(rows, n), ("-", "--"), ("training", "held out"), strict=True
        ):
            ax.plot(samples, bound.mean(1), style, color="tab:red", linewidth=1.2, label=label)
            ax.fill_between(
                samples, bound.min(1), bound.max(1), color="tab:red", alpha=0.2, linewidth=0
            )
        ax.set(
            xscale="log",
            ylim=(-175, -100),
            title=f"MNIST, $N_z$ = {n}",
            xlabel="training samples seen",
        )
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("bound, nats")
    axes[-1].legend(fontsize=8, loc="lower right")


CLAIMS = tuple(
    Claim(
        what=f"overfitting with {n} latents: training bound less held-out bound, nats",
        source="Kingma & Welling 2013, figure 2, which shows none",
        published=0.0,
        values=lambda rows, n=n: np.subtract(*final(rows, n)),
        tolerance=2.0,
        better="lower",
        setting="10^6 of 10^8 samples, binarized pixels",
        digits=1,
    )
    for n in SIZES
)

EXPERIMENT = Experiment(
    claims=CLAIMS,
    config="configs/vae_kingma_welling.py",
    overrides={
        "steps": "1e6 examples",
        "run.eval_every": "50000 examples",
        "run.log_every": "5000 examples",
        "run.sample_every": "never",
        "run.save_every": "250000 examples",
        "run.log": (),
    },
    sweep=sweep,
    table=table,
    figure=figure,
    caption="Lines: mean of n = 5 seeds; bands: their range. Table: standard error in parentheses.",
    metric="valid/neg_elbo",
    panels=(1, 5),
    size=(13, 3),
)

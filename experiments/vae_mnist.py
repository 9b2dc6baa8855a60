"""The VAE of Flax's example on binarized MNIST, five seeds as one compiled program:
test negative ELBO after 10 epochs.

    python launch.py sweep  --experiment=vae_mnist --workdir=runs/vae_mnist
    python launch.py figure --experiment=vae_mnist

The first line trains; the second draws table and figure from the committed rows.

Flax's example prints about 104 nats (its README; one draw, the seed's own). A test
asserts the mean of the five seeds.
"""

from pathlib import Path

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment

HERE = Path(__file__).resolve().parent
REFERENCE = 104.0  # nats, Flax's example
SEEDS = 5


def run(workdir):
    """Rows of all seeds: {seed, step, split, metrics}."""
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files
    from aigc_jax.training.run_dir import RunDir
    from aigc_jax.training.train import train_configs

    config = config_files.load(HERE.parent / "configs" / "vae_mnist.py")
    dirs = [Path(workdir, f"seed_{i}") for i in range(SEEDS)]
    train_configs(
        [configs.override(config, {"seed": i}) for i in range(SEEDS)],
        dirs,
        group_dir=Path(workdir, "group"),
        route="map",
    )
    return [
        dict(seed=i, **row)
        for i, d in enumerate(dirs)
        for row in RunDir(d).read_rows()
        if row["split"] != "train"
    ]


def final(rows) -> np.ndarray:  # [SEEDS]
    return np.array([row["neg_elbo"] for row in rows if row["split"] == "test"])


def table(rows) -> str:
    values = final(rows)
    lines = [
        "| | test negative ELBO, nats |",
        "|---|---|",
        f"| Flax's example | about {REFERENCE:.0f} |",
    ]
    lines += [f"| seed {i} | {value:.2f} |" for i, value in enumerate(values)]
    error = values.std(ddof=1) / len(values) ** 0.5
    return (
        "\n".join(
            [
                *lines,
                f"| mean of {len(values)} (standard error) | {values.mean():.2f} ({error:.2f}) |",
            ]
        )
        + "\n"
    )


def figure(rows, axes):
    for i in range(SEEDS):
        curve = [
            (row["step"], row["neg_elbo"])
            for row in rows
            if row["seed"] == i and row["split"] == "valid" and row["step"]
        ]
        axes.plot(
            *zip(*curve, strict=True),
            color="tab:blue",
            alpha=0.5,
            linewidth=1,
            label="5 seeds, valid" if i == 0 else None,
        )
    axes.axhline(REFERENCE, color="black", linestyle=":", label="Flax's example, test")
    axes.set(xlabel="step", ylabel="negative ELBO, nats", title="VAE on binarized MNIST")
    axes.grid(alpha=0.3)
    axes.legend()


CLAIMS = (
    Claim(
        what="test negative ELBO after 10 epochs, nats",
        source="Flax's example (README)",
        published=REFERENCE,
        values=final,
        tolerance=0.5,  # its README rounds to whole nats
        better="lower",
    ),
)

EXPERIMENT = Experiment(
    run=run,
    table=table,
    figure=figure,
    caption="A line for each of n = 5 seeds.",
    claims=CLAIMS,
    size=(5, 3.2),
)

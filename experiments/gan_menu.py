"""Losses x what is added to them, on MNIST, with equal networks, rates and steps: 72
GANs, three seeds a program.

    python launch.py sweep  --experiment=gan_menu --workdir=runs/menu
    python launch.py figure --experiment=gan_menu

Of the last step, by 5,000 samples and 10,000 images of the test split through the
classifier of MNIST (docs/guides/metrics.md): Fréchet distance, precision and recall.
Nothing was tuned for any of them: rates and weights are those of
configs/gan_menu_mnist.py.
"""

import numpy as np

from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.grid import product, seeds, values

LOSSES = (
    "minimax",
    "non_saturating",
    "least_squares",
    "wasserstein",
    "hinge",
    "relativistic_average",
)
ADDED = {
    "nothing": {},
    "gradient penalty": {"gan.regularizers": ("gradient_penalty",)},
    "R1": {"gan.regularizers": ("r1",)},
    "spectral norm": {"model.d.spectral": True},
}
SEEDS = 3
NAMES = dict(
    frechet="Fréchet distance, features of a classifier", precision="precision", recall="recall"
)


def sweep():
    return product(values("loss", *LOSSES), ADDED.values(), seeds(SEEDS))


def added(row) -> str:
    """Which of ADDED a row's trial had."""
    if row["model.d.spectral"] in (True, "True"):
        return "spectral norm"
    text = str(row["gan.regularizers"])
    return "gradient penalty" if "gradient_penalty" in text else "R1" if "r1" in text else "nothing"


def of(rows, loss, more, name) -> np.ndarray:  # [SEEDS] or fewer, where trials failed
    found = [
        row for row in rows if row["split"] == "test" and row["loss"] == loss and added(row) == more
    ]
    return np.array([row[name] for row in found if row[name] is not None], float)


def table(rows) -> str:
    lines = ["| loss | added | Fréchet | precision | recall |", "|---" * 5 + "|"]
    for loss in LOSSES:
        for more in ADDED:
            cells = []
            for name, digits in dict(frechet=1, precision=3, recall=3).items():
                x = of(rows, loss, more, name)
                error = f" ± {x.std(ddof=1) / len(x) ** 0.5:.{digits}f}" if len(x) > 1 else ""
                cells.append(
                    (f"{x.mean():.{digits}f}{error}" if len(x) else "no value")
                    + (f" (of {len(x)})" if len(x) < SEEDS else "")
                )
            lines.append(f"| {loss.replace('_', ' ')} | {more} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for ax, (name, label) in zip(axes, NAMES.items(), strict=True):
        for j, more in enumerate(ADDED):
            for i, loss in enumerate(LOSSES):
                x = of(rows, loss, more, name)
                ax.scatter(
                    x,
                    [i + 0.18 * (1.5 - j)] * len(x),
                    s=14,
                    color=f"C{j}",
                    label=more if i == 0 else None,
                )
        ax.set_yticks(
            range(len(LOSSES)),
            [loss.replace("_", " ") for loss in LOSSES] if name == "frechet" else [],
        )
        ax.set(
            xlabel=label,
            ylim=(len(LOSSES) - 0.5, -0.5),
            xscale="log" if name == "frechet" else "linear",
        )
        ax.grid(alpha=0.3)
    axes[0].set_xticks((150, 200, 300, 500, 800), ("150", "200", "300", "500", "800"))
    axes[0].set_xticks((), minor=True)
    axes[0].legend(fontsize=7, loc="lower right")


EXPERIMENT = Experiment(
    config="configs/gan_menu_mnist.py",
    overrides={"run.save_every": "never", "run.log": (), "run.samples": 16},
    sweep=sweep,
    table=table,
    figure=figure,
    caption="Table: mean ± standard error, n = 3 seeds unless noted. Points: single seeds.",
    metric="test/frechet",
    panels=(1, 3),
    size=(12, 4),
)

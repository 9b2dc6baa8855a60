"""Does training with the importance weighted bound (k = 5) give a better model than
training with the ELBO of as many draws?

    python launch.py sweep  --experiment=iwae_against_elbo --workdir=runs/iwae
    python launch.py figure --experiment=iwae_against_elbo

The first line trains; the second draws table and figure from the committed rows.

The network of Burda et al. 2016 with one stochastic layer (784-200-200-50), MNIST drawn
black and white anew each step, batches of 100, Adam from 1e-3 to 0 along a cosine,
three seeds each. Every model is taken at its best valid bound and scored alike: -log
p(x) of 1,000 test images, estimated with 5,000 importance samples.
"""

import sys
from pathlib import Path

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment

HERE = Path(__file__).resolve().parent
# Bound -> the metric of the valid split that chooses the checkpoint.
BEST = {"elbo": "neg_elbo", "iwae": "neg_iwae"}
SEEDS, STEPS, TEST_IMAGES = 3, 20_000, 1_000


def config_of(bound, seed):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    return configs.override(
        config_files.load(HERE.parent / "configs" / "iwae_burda.py"),
        {
            "seed": seed,
            "objective": bound,
            "num_importance_samples": 5,
            "steps": f"{STEPS} steps",
            "batch_size": 100,
            "schedule.name": "cosine",
            "optimizer": "adam",
            "best_metric": f"valid/{BEST[bound]}",
            "run.eval_every": "1000 steps",
            "run.save_every": "5000 steps",
            "run.sample_every": "never",
        },
    )


def run(workdir):
    """Rows {bound, seed, split, step, metrics}; test is of the best checkpoint."""
    from aigc_jax.inference.load import load
    from aigc_jax.training.train import train_configs

    rows = []
    for seed in range(SEEDS):
        for bound in BEST:
            where = Path(workdir, f"{bound}_{seed}")
            train_configs([config_of(bound, seed)], [where])
            best = load(where, "best")
            this = dict(bound=bound, seed=seed)
            rows += [this | row for row in best.rows("valid")]
            rows.append(
                this
                | dict(split="test", step=best.step)
                | best.evaluate("test", TEST_IMAGES, ("nll",))
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def scores(rows) -> dict[str, np.ndarray]:
    """bound -> nll of each seed."""
    return {
        bound: np.array(
            [row["nll"] for row in rows if row["bound"] == bound and row["split"] == "test"]
        )
        for bound in BEST
    }


def table(rows) -> str:
    lines = [
        f"| trained with | {' | '.join(f'seed {i}' for i in range(SEEDS))} | mean |",
        "|---" * (SEEDS + 2) + "|",
    ]
    for bound, values in scores(rows).items():
        lines.append(
            f"| {bound.upper()}, 5 draws | {' | '.join(f'{v:.2f}' for v in values)} | "
            f"{values.mean():.2f} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for bound, colour in (("elbo", "tab:orange"), ("iwae", "tab:blue")):
        for seed in range(SEEDS):
            curve = [
                (r["step"], r[BEST[bound]])
                for r in rows
                if (r["bound"], r["seed"], r["split"]) == (bound, seed, "valid") and r["step"]
            ]
            axes.plot(
                *zip(*curve, strict=True),
                color=colour,
                linewidth=1,
                alpha=0.7,
                label=f"{bound.upper()}, its own bound" if not seed else None,
            )
        axes.axhline(
            scores(rows)[bound].mean(),
            color=colour,
            linestyle=":",
            label=f"{bound.upper()}, test NLL",
        )
    axes.set(xlabel="step", ylabel="nats", ylim=(92, 112), title="MNIST, binarized anew each step")
    axes.grid(alpha=0.3)
    axes.legend()


# Burda et al. 2016, table 1, MNIST, one stochastic layer, k = 5
PUBLISHED = {"elbo": 86.47, "iwae": 85.54}
SETTING = "36 of 3,280 epochs, batches of 100 instead of 20, 1,000 of the test images"
CLAIMS = (
    *(
        Claim(
            what=f"test NLL, trained with the {bound.upper()} of 5 draws, nats",
            source="Burda et al. 2016, table 1",
            published=published,
            values=lambda rows, bound=bound: scores(rows)[bound],
            tolerance=0.5,
            better="lower",
            setting=SETTING,
        )
        for bound, published in PUBLISHED.items()
    ),
    Claim(
        what="what the IWAE gains over the ELBO of as many draws, nats",
        source="Burda et al. 2016, table 1",
        published=PUBLISHED["elbo"] - PUBLISHED["iwae"],
        values=lambda rows: scores(rows)["elbo"] - scores(rows)["iwae"],
        tolerance=0.5,
        setting=SETTING,
    ),
)

EXPERIMENT = Experiment(
    run=run,
    table=table,
    figure=figure,
    caption="A line for each of n = 3 seeds; dotted: their mean.",
    claims=CLAIMS,
    size=(5, 3.2),
)

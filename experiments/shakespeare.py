"""Characters of Shakespeare: a Transformer, an LSTM, a GRU and a tanh RNN of one size,
three seeds of each as one program.

    python launch.py sweep  --experiment=shakespeare --workdir=runs/shakespeare
    python launch.py figure --experiment=shakespeare

The first line trains; the second draws table and figure from the committed rows.

The Transformer is `configs/gpt_shakespeare_cpu.py`, nanoGPT's setting for a CPU: 0.8
million parameters, 2,000 steps of 12 windows of 64. The others have as many parameters
(one layer), the same data, steps and optimiser. Scored is the full validation split,
1,742 windows one after another, each from an empty context. nanoGPT's own checkpoint
has 1.893 so measured.
"""

from pathlib import Path

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment

HERE = Path(__file__).resolve().parent
SEEDS, REFERENCE = 3, 1.893  # nanoGPT's
RECURRENT = {"lstm": 384, "gru": 448, "rnn": 800}  # cell -> width
NETWORKS = {
    "transformer": "Transformer, 4 x 128",
    **{cell: f"{cell.upper()}, 1 x {width}" for cell, width in RECURRENT.items()},
}


def config_of(network, seed):
    from ml_collections import ConfigDict

    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    config = configs.override(
        config_files.load(HERE.parent / "configs" / "gpt_shakespeare_cpu.py"),
        {"seed": seed, "run.eval_every": "200 steps"},
    )
    if network == "transformer":
        return config
    plain = config.to_dict() | dict(network="recurrent")
    plain["model"] = dict(
        cell=network, layers=1, width=RECURRENT[network], embedding=128, dropout=0.0, tied=False
    )
    return configs.fill_defaults(ConfigDict(plain))


def run(workdir):
    """Rows {network, seed, split, step, metrics}, and the Transformers' samples as they
    were drawn at the end.
    """
    from aigc_jax.training.run_dir import RunDir
    from aigc_jax.training.train import train_configs

    rows = []
    for network in NETWORKS:
        where = [Path(workdir, f"{network}_{seed}") for seed in range(SEEDS)]
        train_configs(
            [config_of(network, seed) for seed in range(SEEDS)],
            where,
            group_dir=Path(workdir, network),
            route="map",
        )
        for seed, path in enumerate(where):
            rows += [
                dict(network=network, seed=seed) | row
                for row in RunDir(path).read_rows()
                if row["split"] != "train"
            ]
    return rows


def final(rows) -> dict[str, np.ndarray]:
    """network -> held-out loss of each seed after the last step."""
    return {
        network: np.array(
            [row["loss"] for row in rows if row["network"] == network and row["split"] == "test"]
        )
        for network in NETWORKS
    }


def table(rows) -> str:
    lines = [
        f"| network | {' | '.join(f'seed {i}' for i in range(SEEDS))} | mean, nats a "
        "character | bits |",
        "|---" * (SEEDS + 3) + "|",
    ]
    for network, values in final(rows).items():
        bits = values.mean() / np.log(2)
        lines.append(
            f"| {NETWORKS[network]} | {' | '.join(f'{v:.3f}' for v in values)} | "
            f"{values.mean():.3f} | {bits:.3f} |"
        )
    return (
        "\n".join(
            [
                *lines,
                f"| nanoGPT's Transformer of that size | | | | {REFERENCE:.3f} | "
                f"{REFERENCE / np.log(2):.3f} |",
            ]
        )
        + "\n"
    )


def figure(rows, axes):
    for network, colour in zip(
        NETWORKS, ("tab:blue", "tab:orange", "tab:green", "tab:red"), strict=True
    ):
        steps = sorted(
            {
                row["step"]
                for row in rows
                if row["network"] == network and row["split"] == "valid" and row["step"]
            }
        )
        at = lambda step, network=network: [
            r["loss"]
            for r in rows
            if (r["network"], r["split"], r["step"]) == (network, "valid", step)
        ]
        curve = np.array([at(step) for step in steps])
        axes.plot(
            steps, curve.mean(1), color=colour, marker=".", linewidth=1.2, label=NETWORKS[network]
        )
        axes.fill_between(steps, curve.min(1), curve.max(1), color=colour, alpha=0.2)
    axes.axhline(REFERENCE, color="black", linestyle=":", label="nanoGPT")
    axes.set(
        xlabel="step", ylabel="held-out nats a character", ylim=(1.6, 2.6), title="tiny Shakespeare"
    )
    axes.grid(alpha=0.3)
    axes.legend()


CLAIMS = (
    Claim(
        what="held-out loss of the Transformer, nats a character",
        source="nanoGPT's own checkpoint, scored alike; its README has 1.88, of sampled windows",
        published=REFERENCE,
        values=lambda rows: final(rows)["transformer"],
        tolerance=0.01,
        better="lower",
        setting="rate 2e-3 to 0 instead of 1e-3 to 1e-4",
        digits=3,
    ),
)

EXPERIMENT = Experiment(
    run=run,
    table=table,
    figure=figure,
    caption="Lines: mean of n = 3 seeds; bands: their range.",
    claims=CLAIMS,
    size=(5, 3.2),
)

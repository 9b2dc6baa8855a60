"""Does a GAN that can draw digits learn clothes sooner than one that can draw nothing?
`init_from` against scratch.

    python launch.py sweep --experiment=fashion_from_digits --workdir=runs/fashion
    python launch.py figure --experiment=fashion_from_digits

The first command trains dcgan_mnist and three runs of dcgan_fashion; the second draws
table and figure from the committed rows. The curve is the Fréchet distance on pixels of
the averaged generator's samples to the valid split.

Answer (one seed): yes, with the generator alone: after 200 steps it is where scratch is
after 400, after 400 where scratch is after 700. With both networks it is lost: the
discriminator of digits tells clothes from digits at once and drives the generator into
the flat end of its tanh, all black, from which no gradient leads back. The first 200
steps from scratch are worse than they would be: docs/design/log.md.
"""

from pathlib import Path

from aigc_jax.sweeps.experiment import Experiment

HERE = Path(__file__).resolve().parent
# Name in the rows -> name in the figure.
RUNS = {
    "scratch": "from scratch",
    "both": "both networks of dcgan_mnist",
    "generator": "its generator alone",
}
METRIC = "frechet_pixels"


OVERRIDES = {
    "scratch": {},
    "both": {"steps": "400 steps"},
    "generator": {"steps": "400 steps", "init_match": "params/g/|extra/ema|extra/stats/g"},
}


def config_of(name, digits):
    """The config of a run, which may begin with the weights of the run in `digits`."""
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    begin = {} if name == "scratch" else {"init_from": str(digits)}
    config = config_files.load(HERE.parent / "configs" / "dcgan_fashion.py")
    return configs.override(config, begin | OVERRIDES[name])


def run(workdir) -> list[dict]:
    """Rows of the runs' evaluations: {run, step, metrics}."""
    from aigc_jax.training import config_files
    from aigc_jax.training.run_dir import RunDir
    from aigc_jax.training.train import train_configs

    digits = workdir / "digits"
    train_configs([config_files.load(HERE.parent / "configs" / "dcgan_mnist.py")], [digits])
    rows = []
    for name in RUNS:
        train_configs([config_of(name, digits)], [workdir / name])
        found = [row for row in RunDir(workdir / name).read_rows() if row["split"] == "valid"]
        rows += [dict(run=name) | {k: v for k, v in row.items() if k != "split"} for row in found]
    return rows


def curves(rows) -> dict[str, dict[int, float]]:  # run -> {step: METRIC}
    return {name: {row["step"]: row[METRIC] for row in rows if row["run"] == name} for name in RUNS}


def table(rows) -> str:
    """The runs where all were evaluated, and after how many steps scratch is as good as
    the adapted generator.
    """
    all_ = curves(rows)
    scratch, generator = all_["scratch"], all_["generator"]
    lines = [
        f"| step | {' | '.join(RUNS.values())} | scratch is as good as the last after |",
        "|---" * (len(RUNS) + 2) + "|",
    ]
    for step in sorted(set.intersection(*map(set, all_.values()))):
        later = [s for s, value in scratch.items() if value <= generator[step]]
        values = " | ".join(f"{curve[step]:.1f}" for curve in all_.values())
        lines.append(
            f"| {step} | {values} | {min(later) if later else 'never in ' + str(max(scratch))} |"
        )
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for name, curve in curves(rows).items():
        axes.plot(*zip(*sorted(curve.items()), strict=True), marker=".", label=RUNS[name])
    axes.set(xlabel="step", ylabel=METRIC, yscale="log", title="Fashion-MNIST, valid split")
    axes.grid(alpha=0.3)
    axes.legend()


EXPERIMENT = Experiment(
    run=run, table=table, figure=figure, caption="One trial of each (n = 1).", size=(5, 3.2)
)

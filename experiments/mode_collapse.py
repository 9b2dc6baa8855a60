"""Mode collapse on the ring, the grid and stacked MNIST, and its remedies.

    python launch.py sweep --experiment=mode_collapse --workdir=runs/modes
    python launch.py figure --experiment=mode_collapse

The first command trains what is missing (--only=ring,grid,stacked: some of the data
sets); the second draws table and figure from the committed rows.

One GAN of points, that of configs/gan_ring.py, one of images, that of
configs/gan_stacked_mnist.py but smaller and without batch normalization in the
discriminator, which is not for penalties of single examples; and each of REMEDIES alone
added to it, untuned. The seeds of each are one program. Measures are of the last
step, on samples of the generator as it is, unaveraged.
"""

from pathlib import Path

import numpy as np

from aigc_jax.sweeps.experiment import Experiment

HERE = Path(__file__).resolve().parent
SEEDS = 3
NAMES = ("modes", "high_quality", "reverse_kl")
SHOWN = 300  # samples of seed 0 that rows hold, to be drawn
COUNTED = 10_000  # those of stacked MNIST, of which rows hold how many are of each triple

REMEDIES = {
    "nothing": {},
    "packs of 3": {"gan.pack": 3},
    "unrolled 5": {"gan.unroll": 5},
    "minibatch deviation": {"model.d.minibatch_std": True},
    "gradient penalty": {"gan.regularizers": ("gradient_penalty",), "hp.gradient_penalty": 1.0},
    "R1": {"gan.regularizers": ("r1",), "hp.r1": 1.0},
    "spectral norm": {"model.d.spectral": True},
    "Wasserstein, clipped": {
        "gan.regularizers": ("weight_clipping",),
        "loss": "wasserstein",
        "hp.weight_clipping": 0.1,
    },
}
POINTS = {
    "steps": "6000 steps",
    "hp.ema_decay": 0.0,
    "metrics": ("modes",),
    "run.eval_every": "6000 steps",
    "run.save_every": "6000 steps",
    "run.sample_every": "6000 steps",
    "run.log": (),
}
IMAGES = {
    "steps": "1500 steps",
    "model.g.width": 16,
    "model.d.width": 16,
    "model.d.norm": "none",
    "run.eval_every": "1500 steps",
    "run.save_every": "500 steps",
    "run.sample_every": "1500 steps",
    "run.log": (),
}
DATA_SETS = {
    "ring": ("gan_ring.py", POINTS),
    "grid": ("gan_ring.py", POINTS | {"data.name": "grid"}),
    "stacked": ("gan_stacked_mnist.py", IMAGES),
}
MODES = dict(ring=8, grid=25, stacked=1000)
# The measures of stacked MNIST by their names in rows.csv; reverse KL, too.
ALSO = dict(modes="stacked_modes", reverse_kl="stacked_kl")


def config_of(data, remedy):
    """The config of the GAN of a data set with a remedy."""
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    name, overrides = DATA_SETS[data]
    return configs.override(
        config_files.load(HERE.parent / "configs" / name), overrides | REMEDIES[remedy]
    )


def trained(data, remedy, workdir) -> list[dict]:
    """The rows of a remedy's seeds: their measures, and of the first some samples, or
    how many are of each triple of digits.
    """
    import aigc_jax
    from aigc_jax.metrics.mode_coverage import classify_digit_triples
    from aigc_jax.training import config as configs
    from aigc_jax.training.train import train_configs

    folder = Path(workdir, data, remedy.replace(" ", "_"))
    trial_configs = [
        configs.override(config_of(data, remedy), {"seed": seed}) for seed in range(SEEDS)
    ]
    dirs = [folder / str(seed) for seed in range(SEEDS)]
    # Convolutions of several trials at once take longer than one after another.
    route = "map" if data == "stacked" else "vmap"
    train_configs(
        trial_configs,
        dirs,
        group_dir=folder / "group",
        route=route,
    )
    rows = []
    for seed, path in enumerate(dirs):
        last = aigc_jax.load(path).rows("test")[-1]
        values = {name: last.get(name, last.get(ALSO.get(name))) for name in NAMES}
        rows.append(dict(data=data, remedy=remedy, seed=seed) | values | dict(x=None, y=None))
    run = aigc_jax.load(dirs[0])
    if data == "stacked":
        shown = enumerate(
            np.bincount(
                classify_digit_triples(run.sample(COUNTED), run.make_extractor()),
                minlength=MODES[data],
            )
        )
    else:
        shown = ((round(float(x), 3), round(float(y), 3)) for x, y in run.sample(SHOWN))
    return rows + [
        dict(data=data, remedy=remedy, seed=0) | dict.fromkeys(NAMES) | dict(x=x, y=y)
        for x, y in shown
    ]


def measured(rows, data, remedy, name) -> np.ndarray:
    return np.array(
        [
            row[name]
            for row in rows
            if (row["data"], row["remedy"]) == (data, remedy) and row[name] is not None
        ],
        float,
    )


def spread(x, digits) -> str:
    if not len(x):
        return ""
    return f"{x.mean():.{digits}f}" + (
        f" ± {x.std(ddof=1) / len(x) ** 0.5:.{digits}f}" if len(x) > 1 else ""
    )


def table(rows) -> str:
    digits = dict(modes=1, high_quality=0, reverse_kl=2)
    titles = dict(modes="modes of {:,}", high_quality="high quality, %", reverse_kl="reverse KL")
    columns = [
        (data, name)
        for data in MODES
        for name in NAMES
        if not (data == "stacked" and name == "high_quality")
    ]
    head = [
        (f"{data}: " if name == "modes" else "") + titles[name].format(MODES[data])
        for data, name in columns
    ]
    lines = ["| added | " + " | ".join(head) + " |", "|---" * (1 + len(columns)) + "|"]
    for remedy in REMEDIES:
        scaled = lambda data, name, remedy=remedy: (
            (100 if name == "high_quality" else 1) * measured(rows, data, remedy, name)
        )
        lines.append(
            f"| {remedy} | "
            + " | ".join(spread(scaled(data, name), digits[name]) for data, name in columns)
            + " |"
        )
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    for line, data in zip(axes, MODES, strict=True):
        for ax, remedy in zip(line, REMEDIES, strict=True):
            x, y = measured(rows, data, remedy, "x"), measured(rows, data, remedy, "y")
            if data == "stacked":
                ax.imshow(y.reshape(25, 40), cmap="magma", vmin=0, vmax=3 * COUNTED / MODES[data])
                ax.set(xticks=(), yticks=())
            else:
                ax.scatter(x, y, s=1, color="tab:blue")
                reach = 1.5 if data == "ring" else 5.5
                ax.set(
                    xlim=(-reach, reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal"
                )
            ax.set_title(
                f"{remedy}\n{measured(rows, data, remedy, 'modes')[0]:,.0f} of {MODES[data]:,}",
                fontsize=7,
            )


def run(data, workdir) -> list[dict]:
    """The rows of all remedies on one data set."""
    return [row for remedy in REMEDIES for row in trained(data, remedy, workdir)]


EXPERIMENT = Experiment(
    run=run,
    parts=tuple(MODES),
    column="data",
    table=table,
    figure=figure,
    caption="Table: mean ± standard error, n = 3 seeds. Figure: seed 0.",
    size=(12, 5.4),
    panels=(3, len(REMEDIES)),
)

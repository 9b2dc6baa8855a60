"""Every variant of the VAE trained once on real images, beside a baseline that it
should beat.

    python launch.py sweep --experiment=vae_variants --workdir=runs/vae_variants
    python launch.py figure --experiment=vae_variants

The first command trains, in about an hour and a half on 2 CPU cores (--only=vamp,tc:
some of the variants); the second draws table and figure from the committed rows.

Each of VARIANTS is a config of configs/ with changes; each of CLAIMS says which
held-out measure of which variant is to be on which side of what. All measures are of
the test split, one seed. Images go to WORKDIR/images/vae_NAME.png.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from aigc_jax.sweeps.experiment import Claim, Experiment

HERE = Path(__file__).resolve().parent
TWO = {
    "model.widths": "((200,200),(100,100))",
    "latent_dims": "(100,50)",
    "anneal.name": "linear",
    "anneal.period": "10 epochs",
}
BURDA = {
    "steps": "20 epochs",
    "batch_size": 100,
    "objective": "elbo",
    "num_importance_samples": 1,
    "best_metric": "valid/neg_elbo",
    "optimizer": "adam",
    "schedule.name": "constant",
}
BLACK = {
    "data.name": "mnist",
    "binarize": "dynamic",
    "latent_dims": "(8,)",
    "steps": "20 epochs",
    "hp.beta": 2.0,
}
GREY = {"data.name": "mnist", "likelihood": "gaussian_scalar"}


class Variant(NamedTuple):
    config: str
    changes: dict = {}
    sampler: str = "prior"  # the sampler that is drawn


VARIANTS = {
    "elbo": Variant("vae_mnist"),
    "vamp": Variant("vae_mnist", {"prior": "vamp", "model.pseudo": 500}),
    "tc": Variant("vae_mnist", {"penalty": "tc", "hp.penalty": 5.0}, "traversal"),
    "mmd": Variant("vae_mnist", {"penalty": "mmd", "hp.beta": 0.2, "hp.penalty": 500.0}),
    "small_beta": Variant("vae_mnist", {"hp.beta": 0.2}),
    "plane": Variant("vae_mnist", {"latent_dims": "(2,)"}, "manifold"),
    "one_layer": Variant("iwae_burda", BURDA),
    "free_bits": Variant("iwae_burda", BURDA | {"objective": "free_bits", "hp.free_bits": 0.1}),
    "two_layers": Variant("iwae_burda", BURDA | TWO),
    "iwae": Variant(
        "iwae_burda",
        {
            "model.widths": "((400,400),)",
            "model.activation": "relu",
            "steps": "80 epochs",
            "batch_size": 128,
            "schedule.name": "cosine",
            "optimizer": "adam",
            "run.eval_every": "5 epochs",
            "run.save_every": "10 epochs",
            "run.sample_every": "20 epochs",
        },
    ),
    "labels": Variant("vae_mnist", BLACK | {"conditional": True}),
    "no_labels": Variant("vae_mnist", BLACK, "interpolation"),
    "gaussian": Variant("vae_mnist", GREY, "reconstruction"),
    "fashion": Variant("vae_conv_fashion", {"steps": "2 epochs"}),
    "vq": Variant("vqvae_mnist", {}, "reconstruction"),
    "folder": Variant("vae_conv_folder", {"data.path": "cifar10_animals"}, "reconstruction"),
}

# (variant, measure, side, variant or baseline that has the measure too, or a number)
CLAIMS = (
    ("elbo", "neg_elbo", "<", 104.0),
    ("vamp", "neg_elbo", "<", "elbo"),
    ("tc", "total_correlation", "<", "elbo"),
    ("mmd", "mmd", "<", "small_beta"),
    ("mmd", "reconstruction", "<", "elbo"),
    ("free_bits", "active_units", ">", "one_layer"),
    ("two_layers", "neg_elbo", "<", "one_layer"),
    ("iwae", "nll", "<", 90.0),
    ("labels", "class_accuracy", ">", 0.9),
    ("labels", "neg_elbo", "<", "no_labels"),
    ("gaussian", "squared_error", "<", "pca_20"),
    ("fashion", "bits_per_dim", "<", "independent_pixels"),
    ("vq", "perplexity", ">", 128 / 4),
    ("vq", "squared_error", "<", "gaussian"),
    ("folder", "squared_error", "<", "mean_picture"),
    ("folder", "squared_error", "<", "pca_128"),
)
LOST = (CLAIMS[6], CLAIMS[-1])  # those that did not come true: docs/studies/vae.md says why
WORDS = {
    "elbo": "ELBO, N(0, 1) prior",
    "vamp": "VampPrior, 500 pseudo-inputs",
    "tc": "total correlation, weight 5 more",
    "mmd": "MMD, weight 500, KL weight 0.2",
    "small_beta": "KL weight 0.2 alone",
    "free_bits": "free bits, 0.1 nats a latent, 50",
    "plane": "two latents",
    "one_layer": "one stochastic layer, 50",
    "two_layers": "two stochastic layers, 100 and 50, warm-up",
    "iwae": "IWAE, k = 5, 400-400-50, ReLU",
    "labels": "conditional on labels, 8 latents, KL weight 2",
    "no_labels": "the same without labels",
    "gaussian": "Gaussian, one learned variance, 20 latents",
    "pca_20": "PCA, 20 components",
    "fashion": "convolutions, discretized logistic",
    "independent_pixels": "a histogram for each pixel",
    "vq": "VQ, 7x7 of 128 codes",
    "folder": "convolutions, 128x128 in colour, 128 latents",
    "mean_picture": "the mean picture",
    "pca_128": "PCA, 128 components",
}
MEASURES = {
    "neg_elbo": "negative ELBO, nats",
    "reconstruction": "reconstruction, nats",
    "total_correlation": "total correlation, nats",
    "mmd": "MMD^2",
    "active_units": "active units",
    "class_accuracy": "samples of their class",
    "squared_error": "squared error a pixel",
    "nll": "NLL, 5,000 draws, nats",
    "bits_per_dim": "bits per dimension",
    "perplexity": "perplexity of the codes",
}


def config_of(name):
    from aigc_jax.training import config as configs
    from aigc_jax.training import config_files

    it = VARIANTS[name]
    return configs.override(
        config_files.load(HERE.parent / "configs" / f"{it.config}.py"), it.changes
    )


def squared_error(pairs) -> float:  # [N, 2, *shape] in [-1, 1]
    return float(np.mean((pairs[:, 0] - pairs[:, 1]).astype(np.float64) ** 2))


def measures(name, run, where) -> dict[str, float]:
    """All that is measured of a trained variant on the test split."""
    from aigc_jax.media import images
    from aigc_jax.methods.losses import latents as latent_losses

    out = run.evaluate("test")
    if run.config.likelihood.startswith("gaussian"):
        # Of the means themselves, neither clipped nor rounded, as the likelihood and
        # PCA have them.
        count = run.full_programs.dataset.splits["test"][1]
        pairs = run.full_programs.draw(run.states, "reconstruction", count, "test")[0]
        out["squared_error"] = squared_error(pairs)
    if name in ("elbo", "tc", "mmd", "small_beta"):
        z, mean, log_var = np.moveaxis(run.sample(1000, "latents"), 1, 0)
        # With n = 1 the sums over the batch are plain means over it, which here stands
        # for the data set.
        out["total_correlation"] = float(latent_losses.total_correlation(z, mean, log_var, 1))
        out["mmd"] = float(
            latent_losses.squared_mmd(z, np.random.RandomState(0).randn(*z.shape).astype(z.dtype))
        )
    if name == "iwae":
        out |= run.evaluate("test", run.full_programs.dataset.splits["test"][1], ("nll",))
    if name == "labels":
        from parts import judge

        probabilities, out["judge_accuracy"] = judge.train(run.full_programs.dataset)
        labels = run.full_programs.read_class_labels("test", 1000)  # as frequent as in the split
        samples = images.quantize_as_saved(
            run.full_programs.draw(run.states, "prior", len(labels), "test", labels=labels)[0],
            run.spec,
        )
        out["class_accuracy"] = float((probabilities(samples).argmax(1) == labels).mean())
    return out


def pca(train, test, components) -> float:  # 2 x [n, D] -> squared error
    """Of the test rows in the plane of the train rows' first components, by the
    eigenvectors of the smaller Gram matrix.
    """
    mean = train.mean(0)
    centred = train - mean
    wide = centred.shape[1] > centred.shape[0]
    vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)[1][
        :, -components:
    ]
    axes = np.linalg.qr(centred.T @ vectors)[0] if wide else vectors
    rest = test - mean
    return float(np.mean((rest - rest @ axes @ axes.T).astype(np.float64) ** 2))


def independent_pixels(train, test) -> float:  # 2 x uint8 [n, D] -> bits per dimension
    """A distribution of grey levels for each pixel alone, each level counted once more
    than it occurs.
    """
    bits = []
    for a, b in zip(train.T, test.T, strict=True):
        counts = np.bincount(a, minlength=256) + 1
        bits.append(-np.log2(counts / counts.sum())[b].mean())
    return float(np.mean(bits))


def baselines(name, run) -> dict[str, dict[str, float]]:
    """What the variant is compared with and needs no training: {baseline: measures}."""
    from parts.judge import split

    if name not in ("gaussian", "fashion", "folder"):
        return {}
    train, test = (
        split(run.full_programs.dataset, part)["x"].reshape(-1, np.prod(run.spec.shape))
        for part in ("train", "test")
    )
    if name == "gaussian":
        return {"pca_20": dict(squared_error=pca(train, test, 20))}
    if name == "fashion":
        levels = [np.rint((x + 1) * 127.5).astype(np.uint8) for x in (train, test)]
        return {"independent_pixels": dict(bits_per_dim=independent_pixels(*levels))}
    mean = float(np.mean((test - train.mean(0)).astype(np.float64) ** 2))
    return {
        "mean_picture": dict(squared_error=mean),
        "pca_128": dict(squared_error=pca(train, test, 128)),
    }


def run(name, workdir) -> list[dict]:
    """Rows {variant, steps, measure, value}."""
    from aigc_jax.inference.load import load
    from aigc_jax.media import sample_files
    from aigc_jax.media.provenance_marks import describe_origin
    from aigc_jax.training.train import train_configs

    where, it = Path(workdir, name), VARIANTS[name]
    train_configs([config_of(name)], [where])
    done = load(where, "best")
    samples = done.sample(16 if name == "folder" else None, it.sampler)
    about = describe_origin(done.stored["hash"], done.checkpoint_hash(), done.step, 0)
    sample_files.save_samples_png(
        Path(workdir, "images", f"vae_{name}.png"),
        samples,
        done.spec,
        about,
        done.grid_columns(it.sampler),
    )
    rows = [
        dict(variant=name, steps=done.step, measure=k, value=v)
        for k, v in measures(name, done, where).items()
    ]
    for baseline, values in baselines(name, done).items():
        rows += [dict(variant=baseline, steps=0, measure=k, value=v) for k, v in values.items()]
    return rows


def values(rows) -> dict[tuple[str, str], float]:
    return {(row["variant"], row["measure"]): row["value"] for row in rows}


def holds(claim, measured) -> bool:
    name, measure, side, other = claim
    other = measured[other, measure] if isinstance(other, str) else other
    return measured[name, measure] < other if side == "<" else measured[name, measure] > other


def table(rows) -> str:
    measured = values(rows)
    steps = {row["variant"]: row["steps"] for row in rows}
    lines = [
        "| variant | steps | measure | value | baseline | its value | beaten |",
        "|---" * 7 + "|",
    ]
    for claim in CLAIMS:
        name, measure, side, other = claim
        baseline, bound = f"at {'most' if side == '<' else 'least'}", other
        if isinstance(other, str):
            baseline, bound = WORDS[other], measured[other, measure]
        cells = (
            WORDS[name],
            f"{steps[name]:,}",
            MEASURES[measure],
            f"{measured[name, measure]:.4g}",
            baseline,
            f"{bound:.4g}",
        )
        lines.append(f"| {' | '.join(cells)} | {'yes' if holds(claim, measured) else 'no'} |")
    return "\n".join(lines) + "\n"


def figure(rows, axes):
    """Each measure beside its baseline's, as a ratio: below 1 where less is better."""
    measured, names, ratios = values(rows), [], []
    for name, measure, side, other in CLAIMS:
        bound = measured[other, measure] if isinstance(other, str) else other
        ratio = measured[name, measure] / bound
        names.append(f"{name}: {measure}, {other}")
        ratios.append(ratio if side == "<" else 1 / ratio)
    axes.barh(
        names[::-1], ratios[::-1], color=["tab:blue" if r < 1 else "tab:red" for r in ratios[::-1]]
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set(
        xlabel="measure / baseline's (inverted where more is better)",
        title="VAE variants, test split",
    )


def make_claim(claim) -> Claim:
    name, measure, side, other = claim
    return Claim(
        what=f"{WORDS[name]}: {MEASURES[measure]}",
        source=WORDS[other] if isinstance(other, str) else "a bound that was set before",
        is_baseline=True,
        published=(lambda rows: values(rows)[other, measure]) if isinstance(other, str) else other,
        values=lambda rows: [values(rows)[name, measure]],
        tolerance=0.0,
        better="lower" if side == "<" else "higher",
        digits=4 if measure in ("mmd", "squared_error") else 2,
    )


EXPERIMENT = Experiment(
    run=run,
    parts=tuple(VARIANTS),
    column="variant",
    table=table,
    figure=figure,
    caption="One trial of each variant (n = 1).",
    claims=tuple(map(make_claim, CLAIMS)),
    size=(7, 4),
)

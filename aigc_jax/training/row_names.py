"""The metrics that the rows of a config will have, known before training and without
jax.
"""

from typing import Any

from aigc_jax.metrics.schema import METRICS

NORMS = "norm/"  # the beginning of further names, with config.run.log_norms
# Method -> names in the rows of training; further ones depend on keys.
TRAINED = {
    "gan": ("d_loss", "g_loss"),
    "vae": ("loss", "reconstruction", "kl"),
    "vqvae": ("loss", "reconstruction", "commitment", "perplexity"),
    "lm": ("loss",),
    "seq2seq": ("loss",),
    "mlm": ("loss",),
    "classifier": ("loss",),
}
# Method -> names in the rows of evaluations, without those of config.metrics.
EVALUATED = {
    "gan": ("d_loss", "g_loss", "real_logit", "fake_logit", "real_accuracy", "fake_accuracy"),
    "vae": ("neg_elbo", "reconstruction", "kl", "bits_per_dim"),
    "vqvae": ("reconstruction", "commitment", "squared_error", "perplexity"),
    "lm": ("loss", "perplexity", "bits_per_character", "bits_per_byte"),
    "seq2seq": ("loss", "perplexity", "bits_per_character", "bits_per_byte"),
    "mlm": ("loss", "perplexity", "accuracy"),
    "classifier": ("loss", "accuracy"),
}
# Entry of config.metrics -> its names in rows, if not its own name.
MEASURED = {
    "prdc": ("precision", "recall", "density", "coverage"),
    "stacked_modes": ("stacked_modes", "stacked_kl"),
    "neighbours": ("neighbour_distance", "copies"),
    "parzen": ("parzen", "parzen_error", "parzen_sigma"),
    "modes": ("modes", "high_quality", "reverse_kl"),
    "nll": ("nll", "nll_error"),
    "rouge": ("rouge1", "rouge2", "rougeL"),
    "variety": ("distinct_1", "distinct_2", "self_bleu"),
}


def list_row_metrics(leaves: dict[str, Any]) -> list[str] | None:  # "split/name"
    """Return "split/name" of the metrics of a config with these leaves; None where a
    method or a metric of another package may have further names.
    """
    method, measured = leaves["method"], leaves["metrics"]
    if method not in TRAINED or not set(measured) <= METRICS.keys():
        return None
    trained, evaluated = [*TRAINED[method]], [*EVALUATED[method]]
    if leaves.get("gan.condition") == "auxiliary":
        trained += ["d_classes", "g_classes"]
        evaluated += ["class_accuracy_real"]
    trained += leaves.get("gan.regularizers", ())
    if method == "vae":
        layers = len(leaves["latent_dims"])
        active = [f"active_units_{i + 1}" for i in range(layers)]
        evaluated += active if layers > 1 else ["active_units"]
        evaluated += ["neg_iwae"] * (leaves["objective"] in ("iwae", "dreg"))
        trained += [leaves["penalty"]] * (leaves.get("penalty", "none") != "none")
    evaluated += [name for entry in measured for name in MEASURED.get(entry, (entry,))]
    splits = dict(valid=evaluated, test=evaluated, train=trained)
    return [f"{split}/{name}" for split, names in splits.items() for name in names]


def may_have_norms(leaves: dict[str, Any]) -> bool:
    """Return whether rows of training have norms, whose names depend on the network."""
    return bool(leaves.get("run.log_norms"))

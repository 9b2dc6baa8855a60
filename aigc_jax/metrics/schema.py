"""The metrics and their keys. This module does not import jax."""

from aigc_jax.core.schema import NAMES, Key

# Entry of config.metrics -> help; `metrics.METRICS` has the function of each.
METRICS = {
    "frechet": "Frechet distance of features; FID for those of Inception (Heusel et al. 2017)",
    "frechet_pixels": "the same of pixels, averaged to at most 1,024 values; not FID",
    "kid": "kernel distance of features (Binkowski et al. 2018)",
    "prdc": "precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. "
    "2020)",
    "classifier_score": "exp of the mutual information of samples and predicted classes; the "
    "Inception score for Inception (Salimans et al. 2016)",
    "class_accuracy": "share of samples that the classifier assigns to the requested class",
    "stacked_modes": "stacked_mnist: number of digit triples that occur, and KL to uniform",
    "neighbours": "distances to the nearest training examples: detects copies",
    "parzen": "log density of the data under Gaussian windows on samples (Goodfellow et al. 2014)",
    "separability": "accuracy of a linear classifier between samples and data (Lopez-Paz & Oquab "
    "2017)",
    "diversity": "mean distance between samples, relative to that between examples",
    "modes": "ring, grid: modes found, share of samples near a mode, reverse KL",
    "nll": "negative log likelihood of a VAE by importance sampling (Burda et al. 2016)",
    "bleu": "BLEU of translations by beam search (Papineni et al. 2002; sacrebleu)",
    "bleu_greedy": "BLEU of translations by greedy decoding",
    "rouge": "ROUGE-1, -2 and -L of answers (Lin 2004; rouge-score)",
    "variety": "distinct n-grams and self-BLEU of generated texts (Zhu et al. 2018)",
}

KEYS = (
    Key("metrics", NAMES, "Metrics of every evaluation.", (), allowed=METRICS),
    Key("num_metric_samples", int, "Samples that metrics draw.", 1000, 2, 10**7, unit="samples"),
    Key(
        "extractor",
        str,
        "Feature extractor of metrics: 'classifier', trained on the data, or the path of "
        "Inception's weights.",
        "classifier",
    ),
)

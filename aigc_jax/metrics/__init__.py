"""Metrics over whole data sets: pure functions of arrays, on the host, in float64.

Each is (Given) -> {name: float}: of one trial, its samples, the examples of a split and
what an extractor of features sees in both; one that divides texts into words adds how,
as {"NAME_signature": str}. One function, one table line. Samples that are not finite
make a metric nan (of `modes`: 0), never an error.
"""

from aigc_jax.metrics import (
    classifier_scores,
    diversity,
    frechet,
    kid,
    memorization,
    mode_coverage,
    nll,
    parzen,
    precision_recall,
    text,
    two_sample_test,
)
from aigc_jax.metrics.inputs import MOST
from aigc_jax.utils.errors import choose, require

__all__ = ["EXTRACTED", "METRICS", "card", "definition", "find_metrics"]

# config.metrics -> function
METRICS = {
    "frechet": frechet.frechet_features,
    "frechet_pixels": frechet.frechet_pixels,
    "kid": kid.kernel_distance,
    "prdc": precision_recall.cover,
    "classifier_score": classifier_scores.score,
    "class_accuracy": classifier_scores.class_accuracy,
    "stacked_modes": mode_coverage.stacked_modes,
    "neighbours": memorization.neighbours,
    "parzen": parzen.parzen,
    "separability": two_sample_test.separability,
    "diversity": diversity.diversity,
    "modes": mode_coverage.modes,
    "nll": nll.nll,
    "bleu": text.answered,
    "bleu_greedy": text.answered_greedily,
    "rouge": text.overlap,
    "variety": text.varied,
}
# Those that look at features or classes.
EXTRACTED = (
    "frechet",
    "kid",
    "prdc",
    "classifier_score",
    "class_accuracy",
    "stacked_modes",
    "separability",
)

# The sampler that they draw from, where it is not "prior".
SAMPLER = dict(
    nll="log_likelihood", bleu="answer", bleu_greedy="greedy", rouge="answer", variety="text"
)

_equal, _first = (lambda n, m: (min(n, m, MOST),) * 2), (lambda n, m: (min(n, m),) * 2)
# How many of n samples and m examples are used, where it is not all of both.
USED = {
    "kid": lambda n, m: (min(n, MOST), min(m, MOST)),
    "prdc": _equal,
    "separability": _equal,
    "diversity": lambda n, m: (min(n, diversity.MOST), min(m, diversity.MOST)),
    "neighbours": lambda n, m: (n, min(n, m)),
    "nll": lambda n, m: (0, min(n, m)),
    "bleu": _first,
    "bleu_greedy": _first,
    "rouge": _first,
} | dict.fromkeys(
    ("classifier_score", "class_accuracy", "stacked_modes", "modes", "variety"), lambda n, m: (n, 0)
)


def find_metrics(names, samplers, method: str, key="config.metrics") -> list:
    """The functions of these names, for a method with these samplers; `key` is what a
    wrong one was given for.
    """
    found = [choose(METRICS, name, f"{key}[{i}]") for i, name in enumerate(names)]
    for i, name in enumerate(names):
        needed = SAMPLER.get(name, "prior")
        require(
            needed in samplers,
            f"{key}[{i}] = {name!r} needs the sampler {needed!r}, and config.method = "
            f"{method!r} has only " + ", ".join(samplers),
        )
    return found


def card(name: str, samples: int, examples: int, split: str, extractor=None, signature="") -> str:
    """What a value of this metric rests on: its definition, how many samples against
    how many examples, the extractor of features, the signature of sacrebleu where it
    counts words.
    """
    n, m = USED.get(name, lambda *both: both)(samples, examples)
    parts = [
        f"{count:,} {what}"
        for count, what in ((n, "samples"), (m, f"examples of the {split} split"))
        if count
    ]
    seen = (
        f"; seen through the {extractor.name}, SHA-256 {extractor.sha256[:12]}"
        if name in EXTRACTED
        else ""
    )
    words = f"; words by {signature}" if signature else ""
    return f"{name}: {definition(name)}\n  {' against '.join(parts)}{seen}{words}"


def definition(name: str) -> str:
    """Return the first paragraph of the docstring of a metric, as one line."""
    return " ".join((METRICS[name].__doc__ or "").split("\n\n")[0].split())

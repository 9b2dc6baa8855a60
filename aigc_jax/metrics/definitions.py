"""The table of metrics: pure functions of arrays, on the host, in float64.

Each is a function MetricInputs -> {name: float} of one trial's samples, the examples of
a split and the features of both; metrics that tokenize texts add the tokenization as
{"NAME_signature": str}. Each metric is one function and one entry of METRICS. Samples
that are not finite yield nan (0 for `modes`), never an error.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

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
from aigc_jax.metrics.inputs import MOST, MetricInputs
from aigc_jax.utils.errors import choose, require

# config.metrics -> function
METRICS: dict[str, Callable[[MetricInputs], dict[str, Any]]] = {
    "frechet": frechet.frechet_features,
    "frechet_pixels": frechet.frechet_pixels,
    "kid": kid.kernel_distance,
    "prdc": precision_recall.manifold_statistics,
    "classifier_score": classifier_scores.inception_score,
    "class_accuracy": classifier_scores.class_accuracy,
    "stacked_modes": mode_coverage.stacked_modes,
    "neighbours": memorization.neighbours,
    "parzen": parzen.parzen,
    "separability": two_sample_test.separability,
    "diversity": diversity.diversity,
    "modes": mode_coverage.modes,
    "nll": nll.nll,
    "bleu": text.bleu_of_answers,
    "bleu_greedy": text.bleu_of_greedy,
    "rouge": text.rouge_of_answers,
    "variety": text.text_variety,
}
# Metrics that use features or class probabilities.
EXTRACTED = (
    "frechet",
    "kid",
    "prdc",
    "classifier_score",
    "class_accuracy",
    "stacked_modes",
    "separability",
)

# Metric -> the sampler that it uses, if not "prior".
SAMPLER = dict(
    nll="log_likelihood", bleu="answer", bleu_greedy="greedy", rouge="answer", variety="text"
)

_equal, _first = (lambda n, m: (min(n, m, MOST),) * 2), (lambda n, m: (min(n, m),) * 2)
# Metric -> numbers of samples and examples used out of n samples and m examples, if not
# all.
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


def select_metrics(
    names: Sequence[str],
    samplers: Iterable[str],
    method: str,
    error_key: str = "config.metrics",
) -> list[Callable[[MetricInputs], dict[str, Any]]]:
    """Return the metrics of these names, for a method with these samplers.

    Args:
      names: keys of METRICS.
      samplers: names of the method's samplers.
      method: name of the method, for error messages.
      error_key: the key or flag that specified the names, for error messages.

    Raises:
      UserError: a metric does not exist or needs another sampler.
    """
    selected = [choose(METRICS, name, f"{error_key}[{i}]") for i, name in enumerate(names)]
    for i, name in enumerate(names):
        needed = SAMPLER.get(name, "prior")
        require(
            needed in samplers,
            f"{error_key}[{i}] = {name!r} needs the sampler {needed!r}, and config.method = "
            f"{method!r} has only " + ", ".join(samplers),
        )
    return selected


def describe_metric(
    name: str,
    num_samples: int,
    num_examples: int,
    split: str,
    extractor: Any = None,
    signature: str = "",
) -> str:
    """Describe how a value of this metric was computed: its definition, the numbers of
    samples and examples that it used, and its feature extractor or signature.

    Args:
      name: a key of METRICS.
      num_samples: of the samples that were drawn.
      num_examples: of the examples of the split.
      split: "train", "valid" or "test".
      extractor: the feature extractor, with `name` and `sha256`; needed only for the
        metrics in EXTRACTED.
      signature: sacrebleu's signature of the value; "" for other metrics.
    """
    n, m = USED.get(name, lambda *both: both)(num_samples, num_examples)
    parts = [
        f"{count:,} {what}"
        for count, what in ((n, "samples"), (m, f"examples of the {split} split"))
        if count
    ]
    features = (
        f"; features of the {extractor.name}, SHA-256 {extractor.sha256[:12]}"
        if name in EXTRACTED
        else ""
    )
    words = f"; sacrebleu {signature}" if signature else ""
    return f"{name}: {metric_definition(name)}\n  {' against '.join(parts)}{features}{words}"


def metric_definition(name: str) -> str:  # a line of text
    """Return the first paragraph of a metric's docstring, as one line."""
    return " ".join((METRICS[name].__doc__ or "").split("\n\n")[0].split())

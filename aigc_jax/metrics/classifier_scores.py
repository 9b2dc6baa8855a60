"""Metrics of generated images by the class probabilities of a classifier."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs
from aigc_jax.utils.errors import require


def classifier_score(probabilities: np.ndarray) -> float:  # [n, K] -> exp(mean KL), 1 .. K
    """Return exp of the mean of KL(p(y | x) || p(y)), where p(y) is the mean of
    p(y | x) over the samples (Salimans et al. 2016, section 4).

    The score ranges from 1, for equal or uniform p(y | x), to K, for one-hot p(y | x)
    and equally frequent classes.

    Args:
      probabilities: [n, K] of the classes; rows sum to 1. If a value is not finite, the
        score is nan.
    """
    if not np.isfinite(probabilities).all():
        return math.nan
    probabilities = np.asarray(probabilities, np.float64)
    log = lambda x: np.log(np.where(x > 0, x, 1))  # 0 log 0 = 0
    return float(
        np.exp((probabilities * (log(probabilities) - log(probabilities.mean(0)))).sum(1).mean())
    )


def inception_score(inputs: MetricInputs) -> dict[str, float]:  # classifier_score
    """exp(mean KL(p(y | x) || p(y))) of a classifier's probabilities: 1 at worst, the
    number of classes at best.

    It is the Inception score of Salimans et al. 2016 if the classifier is Inception,
    over all samples at once. Real examples are not used.
    """
    return dict(classifier_score=classifier_score(inputs.extract(inputs.draw("prior"))[1]))


def class_accuracy(inputs: MetricInputs) -> dict[str, float]:  # class_accuracy, of samples
    """The share of samples that a classifier assigns to the class they were drawn for.

    Classes are as frequent as in the split.
    """
    labels, classes = inputs.labels(), inputs.spec.classes
    require(
        labels is not None,
        "config.metrics: 'class_accuracy' is for class-conditional generators, such as those of "
        "config.gan.condition = 'projection'",
    )
    p = inputs.extract(inputs.draw("prior"))[1]
    require(
        p.shape[1] == classes,
        f"config.metrics: 'class_accuracy' needs a classifier of the {classes} classes "
        f"of the data, not of {p.shape[1]}",
    )
    right = p.argmax(1) == labels
    return dict(class_accuracy=float(right.mean()) if np.isfinite(p).all() else math.nan)

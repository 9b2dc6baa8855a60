"""Likelihoods of held-out examples."""

import math

import numpy as np


def nll(given) -> dict[str, float]:
    """The mean of -log p(x) in nats over `config.metric_samples` random examples of the
    split.

    And its standard error over them. These are always the same (`fixed_order`); no
    example twice. By the method's own estimator ("log_likelihood"; for a VAE importance
    sampling, which exceeds the true value in the mean and nears it with its draws).
    """
    values = -np.asarray(given.draw("log_likelihood"), np.float64)[: len(given.real["x"])]
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return dict(nll=float(values.mean()), nll_error=float(error))

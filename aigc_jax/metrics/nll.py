"""Likelihoods of held-out examples."""

import math

import numpy as np

from aigc_jax.metrics.inputs import MetricInputs


def nll(inputs: MetricInputs) -> dict[str, float]:  # nll and its standard error, in nats
    """The mean of -log p(x) in nats over `config.num_metric_samples` random examples of
    the split.

    With its standard error over the examples, which are distinct and always the same
    (`permute_fixed`). Estimated by the method's sampler "log_likelihood": for a VAE
    importance sampling, whose expectation exceeds the true value and approaches it with
    the number of draws.
    """
    values = -np.asarray(inputs.draw("log_likelihood"), np.float64)[
        : len(inputs.real_examples["x"])
    ]
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return dict(nll=float(values.mean()), nll_error=float(error))

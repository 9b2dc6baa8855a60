"""Likelihoods of images, elementwise: methods sum them over the axes of an example.

Losses return one value per example; two-sample losses, documented as such, take the
batch and return a scalar. Methods do the reductions, and tables like the one below map
names to functions. Logarithms are natural, and units are nats.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, softplus

from aigc_jax.core.method import Array


class Likelihood(NamedTuple):
    """A likelihood p(x | z), parametrized by a decoder's outputs.

    `scale` is the source of the scale parameter: "none" for likelihoods without a
    scale, "hp" a hyper-parameter, "scalar" one parameter of the model, "pixel" an
    output of the decoder for every value.

    `log_prob` returns log p of each value in nats, for the values x [..., *S], the
    location [..., *S] (the logits of a Bernoulli distribution, else the mean), the log
    scale, [] or [..., *S] (the log variance of a normal distribution, the log scale of
    a logistic one, None without a scale), and `data.dataset.Spec.levels`.
    """

    # (x [..., *S], location [..., *S], scale [] or [..., *S], levels) -> [..., *S]
    log_prob: Callable
    mean: Callable[[Array], Array]  # location -> the expected value, on the scale of x
    scale: str
    discrete: bool  # a probability of integer grey levels: bits per dimension are defined


def bernoulli_log_prob(
    x: Array, logits: Array, _scale: Any, _levels: Any
) -> Array:  # 2 x [..., *S] -> [..., *S], elementwise
    """Return x log s(l) + (1 - x) log(1 - s(l)), s the sigmoid, for x in {0, 1} (Kingma
    & Welling 2013, appendix C.1).
    """
    return x * logits - softplus(logits)


def gaussian_log_prob(
    x: Array, mean: Array, log_var: Array, _levels: Any
) -> Array:  # 3 x [..., *S] -> [..., *S], elementwise
    """Return log N(x; mean, exp(log_var)) (Kingma & Welling 2013, appendix C.2). For a
    fixed variance v this is -(x - mean)^2 / 2v + constant.
    """
    return -0.5 * (math.log(2 * math.pi) + log_var + (x - mean) ** 2 * jnp.exp(-log_var))


def discretized_logistic_log_prob(
    x: Array, mean: Array, log_scale: Array, levels: int
) -> Array:  # 3 x [..., *S] -> [..., *S], elementwise
    """Return log P of one of levels + 1 equidistant values in [-1, 1] under a logistic
    distribution: the mass within half a step of the value, or of the entire tail for
    the two extreme values (Kingma et al. 2016, section 5.2; Salimans et al. 2017,
    eq. 2). The masses sum to 1. `levels` must be positive.

    The mass between b < a is computed as s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s
    the sigmoid, which avoids cancellation.
    """
    width = 2 / levels * jnp.exp(-log_scale)
    centre = (x - mean) * jnp.exp(-log_scale)
    upper, lower = log_sigmoid(centre + width / 2), log_sigmoid(-(centre - width / 2))
    inside = upper + lower + jnp.log(-jnp.expm1(-width))
    half = 1 / levels
    return jnp.where(x < -1 + half, upper, jnp.where(x > 1 - half, lower, inside))


def identity(location: Array) -> Array:  # [...] -> [...]
    """Return the location unchanged: the mean of a likelihood over all real numbers."""
    return location


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli_log_prob, jax.nn.sigmoid, "none", True),
    "gaussian": Likelihood(gaussian_log_prob, identity, "hp", False),
    "gaussian_scalar": Likelihood(gaussian_log_prob, identity, "scalar", False),
    "gaussian_pixel": Likelihood(gaussian_log_prob, identity, "pixel", False),
    "logistic": Likelihood(discretized_logistic_log_prob, identity, "scalar", True),
    "logistic_pixel": Likelihood(discretized_logistic_log_prob, identity, "pixel", True),
}

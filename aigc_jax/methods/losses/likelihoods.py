"""Losses: arrays in, one number per example out; two-sample losses take the batch,
return [] and say so. Reductions belong to the methods, choices to the tables below.
Logarithms are natural: nats.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, softplus

# -- likelihoods of pictures, value by value: sum them over the axes of an example


class Likelihood(NamedTuple):
    """p(x | z): what a decoder's outputs mean. `scale` says where the spread comes
    from: "none" there is none, "hp" a hyper-parameter, "scalar" one parameter of the
    model, "pixel" an output of the decoder for every value.
    """

    # (x [..., *S], location [..., *S], scale [] or [..., *S], levels) -> [..., *S]
    log_prob: Callable
    mean: Callable  # location -> the expected value, in the data's range
    scale: str
    discrete: bool  # a probability of whole grey levels, so that bits per dimension mean something


def bernoulli(x, logits, _scale, _levels):  # -> [..., *S]
    """x log s(l) + (1 - x) log(1 - s(l)), s the sigmoid, for x in {0, 1} (Kingma &
    Welling 2013, appendix C.1).
    """
    return x * logits - softplus(logits)


def gaussian(x, mean, log_var, _levels):  # -> [..., *S]
    """log N(x; mean, exp(log_var)) (Kingma & Welling 2013, appendix C.2). With a fixed
    variance v: -(x - mean)^2 / 2v + constant.
    """
    return -0.5 * (math.log(2 * math.pi) + log_var + (x - mean) ** 2 * jnp.exp(-log_var))


def discretized_logistic(x, mean, log_scale, levels):  # -> [..., *S]
    """log P of one of levels + 1 equidistant values in [-1, 1] under a logistic
    distribution: the mass within half a step of it, of the whole tail at the two ends
    (Kingma et al. 2016, section 5.2; Salimans et al. 2017, eq. 2). The masses sum to 1.

    Between cuts b < a the mass is s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s the
    sigmoid: no difference of near numbers.
    """
    width = 2 / levels * jnp.exp(-log_scale)
    centre = (x - mean) * jnp.exp(-log_scale)
    upper, lower = log_sigmoid(centre + width / 2), log_sigmoid(-(centre - width / 2))
    inside = upper + lower + jnp.log(-jnp.expm1(-width))
    half = 1 / levels
    return jnp.where(x < -1 + half, upper, jnp.where(x > 1 - half, lower, inside))


def identity(location):
    """Return the location unchanged: the mean of a likelihood over all real numbers."""
    return location


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli, jax.nn.sigmoid, "none", True),
    "gaussian": Likelihood(gaussian, identity, "hp", False),
    "gaussian_scalar": Likelihood(gaussian, identity, "scalar", False),
    "gaussian_pixel": Likelihood(gaussian, identity, "pixel", False),
    "logistic": Likelihood(discretized_logistic, identity, "scalar", True),
    "logistic_pixel": Likelihood(discretized_logistic, identity, "pixel", True),
}

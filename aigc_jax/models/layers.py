"""Parts that several networks share."""

from functools import partial

import flax.linen as nn

from aigc_jax.models.reductions import BatchNorm

# The names that configs use. The slope of "leaky_relu" is that of DCGAN (Radford et al. 2016), the other that of Maas et al. 2013.
ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.2),
    "leaky_relu_0.01": partial(nn.leaky_relu, negative_slope=0.01),
    "tanh": nn.tanh,
    "gelu": nn.gelu,
}
# Normalization of [B, ..., C], by the names that configs use. A layer before one needs no bias: it would have no gradient.
NORMS = {
    "none": None,
    "batch": BatchNorm,
}


def normalize(norm: str, x, train: bool, types: dict):  # [B, ..., C] -> [B, ..., C]
    """One of NORMS as the next layer of the module whose __call__ this is in."""
    return x if NORMS[norm] is None else NORMS[norm](**types)(x, train)

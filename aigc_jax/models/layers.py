"""Parts that several networks share."""

from functools import partial

import flax.linen as nn

# The names that configs use. The slope of "leaky_relu" is Radford et al.'s 0.2 (DCGAN, 2016).
ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.2),
    "tanh": nn.tanh,
    "gelu": nn.gelu,
}

"""Parts that several networks share."""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.models.normalization import BatchNorm

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def _gelu(x):
    """GELU and its derivative."""
    # The bound keeps the exponential finite where the value is 0 anyway, below -4.
    e = jnp.exp(jnp.minimum(-2 * SQRT_2_OVER_PI * (x + 0.044715 * x**3), 40.0))
    slope = 2 * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x**2)
    return x / (1 + e), ((1 + e) + x * e * slope) / ((1 + e) * (1 + e))


@jax.custom_vjp
def gelu(x):
    """x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3): the approximation x
    (1 + tanh u) / 2 of Hendrycks & Gimpel 2016, which GPT-2 has. Written so it takes a
    third of the time of `jax.nn.gelu` on CPUs: an exponential is less work than a tanh,
    and XLA does not compute twice what ends in a division (docs/LOG.md).
    """
    return _gelu(x)[0]


gelu.defvjp(lambda x: (gelu(x), x), lambda x, g: (g * _gelu(x)[1],))

# The names that configs use. The slope of "leaky_relu" is that of DCGAN (Radford et al.
# 2016), the other that of Maas et al. 2013.
ACTIVATIONS: dict[str, Callable] = {
    "identity": lambda x: x,
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.2),
    "leaky_relu_0.01": partial(nn.leaky_relu, negative_slope=0.01),
    "tanh": nn.tanh,
    "gelu": gelu,
}


def over_axes(layer, x, types):
    """Of each example by itself, then a scale and a shift for each channel."""
    return layer(epsilon=1e-5, use_fast_variance=False, **types)(x)


# Normalization of [B, ..., C], by the names that configs use: (x, train, types) -> x. A
# layer before one needs no bias.
NORMS = {
    "none": lambda x, train, types: x,
    "batch": lambda x, train, types: BatchNorm(**types)(x, train),
    # over all values of an example (Ba et al. 2016; of pictures as Gulrajani et al.
    # 2017, section 4), over each channel's (Ulyanov et al. 2016)
    "layer": lambda x, train, types: over_axes(
        partial(nn.LayerNorm, reduction_axes=tuple(range(1, x.ndim))), x, types
    ),
    "instance": lambda x, train, types: over_axes(nn.InstanceNorm, x, types),
}


def normalize(norm: str, x, train: bool, types: dict):  # [B, ..., C] -> [B, ..., C]
    """One of NORMS as the next layer of the module whose __call__ this is in."""
    return NORMS[norm](x, train, types)


class Network(nn.Module):
    """What the config describes: `misfit()` says in what its fields do not suit the
    shape of the data, or ''; `compiler` as Method's.
    """

    @property
    def compiler(self) -> dict[str, dict]:
        """Options of the compiler that suit the network, by platform."""
        return {}

    def misfit(self) -> str:
        """Return why the fields do not suit the shape of the data; '' where they do."""
        return ""


def padded(vocabulary: int) -> int:
    """Rows of a table of embeddings, columns of logits: a multiple of 128, which
    divides over devices and fills their lanes.
    """
    return -(-vocabulary // 128) * 128


def largest(x):  # [..., K] -> [...]
    """The largest along the last axis, with a gradient to the first that is as large.

    The gradient of `max` divides by how many are equal to the largest, and there is
    none where a program computes them twice with other roundings.
    """
    first = jnp.argmax(x, axis=-1, keepdims=True)
    return jnp.where(jnp.arange(x.shape[-1]) == first, x, 0).sum(-1)


def mask_logits(logits, vocabulary: int):  # [..., V] -> [..., V]
    """The logits, those of ids past the vocabulary so low that they have no probability
    and no gradient.
    """
    return jnp.where(
        jnp.arange(logits.shape[-1]) < vocabulary, logits, jnp.asarray(-1e9, logits.dtype)
    )


def dropout(module, x, rate: float):
    """x / (1 - rate) with probability 1 - rate, else 0, value by value (Srivastava et
    al. 2014), where `apply` is given a "dropout" key. The rate is a multiple of 2^-16:
    a value costs 16 random bits, which are what dropout's time goes into on CPUs.
    """
    if not rate or not module.has_rng("dropout"):
        return x
    kept = round((1 - rate) * 2**16)
    bits = jax.random.bits(module.make_rng("dropout"), x.shape, jnp.uint16)
    return jnp.where(bits < kept, x * (2**16 / kept), 0)


LEAST = 4  # pixels a side of the smallest picture in a network whose depth follows from the data


def halvings(shape, width) -> tuple[int, ...]:
    """Channels of the halves of a picture, as long as they are whole and have at least
    4 pixels a side: twice as many each time, from `width` up to 8 width (Radford et al.
    2016, figure 1). Width 64: 28x28 -> (64, 128), 64x64 -> (64, 128, 256, 512).
    """
    height, wide = shape[:2]
    channels: tuple[int, ...] = ()
    while height % 2 == wide % 2 == 0 and min(height, wide) >= 2 * LEAST:
        height, wide, channels = (
            height // 2,
            wide // 2,
            (*channels, width * min(2 ** len(channels), 8)),
        )
    return channels


def undivided(layers, shape) -> str:
    """Why pictures cannot be halved once a layer, or ''."""
    times = 2 ** len(layers)
    whole = shape[0] % times == shape[1] % times == 0
    return (
        ""
        if whole
        else f"channels = {layers} halve {len(layers)} times, and {shape[0]} x {shape[1]} pixels "
        f"do not divide by {times}"
    )


def unclear(net) -> str:
    """Why the layers of a network with `channels` or `width` do not follow from them
    and the shape of the data, or ''.
    """
    if len(net.shape) != 3:
        return (
            f"channels = {net.channels} are for pictures, and the data are points {list(net.shape)}"
        )
    if bool(net.channels) == bool(net.width):
        return (
            "channels (of each layer) or width (for as many layers as the pictures allow) must "
            "be given, one of the two"
        )
    height, width, _ = net.shape
    return (
        ""
        if net.layers
        else f"width = {net.width}: {height} x {width} pixels cannot be halved to {LEAST} or "
        "more; another data.size would do"
    )

"""Activations, normalization, dropout and helpers that several networks share."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.normalization import BatchNorm

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


def _gelu(x: Array) -> tuple[Array, Array]:
    """Return GELU and its derivative."""
    # The bound makes the exponential finite below -4, where the value is 0 anyway.
    e = jnp.exp(jnp.minimum(-2 * SQRT_2_OVER_PI * (x + 0.044715 * x**3), 40.0))
    slope = 2 * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * x**2)
    return x / (1 + e), ((1 + e) + x * e * slope) / ((1 + e) * (1 + e))


@jax.custom_vjp
def gelu(x: Array) -> Array:  # [...] -> [...], the tanh approximation
    """Return x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3).

    This is the approximation x (1 + tanh u) / 2 of Hendrycks & Gimpel 2016, which GPT-2
    uses. In this form it takes a third of the time of `jax.nn.gelu` on CPUs: an
    exponential is cheaper than a tanh, and XLA does not recompute an expression that
    ends in a division (docs/design/log.md).
    """
    return _gelu(x)[0]


gelu.defvjp(lambda x: (gelu(x), x), lambda x, g: (g * _gelu(x)[1],))

# Activations by their names in configs. The slope of "leaky_relu" is that of DCGAN
# (Radford et al. 2016), the other that of Maas et al. 2013.
ACTIVATIONS: dict[str, Callable] = {
    "identity": lambda x: x,
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.2),
    "leaky_relu_0.01": partial(nn.leaky_relu, negative_slope=0.01),
    "tanh": nn.tanh,
    "gelu": gelu,
}


def normalize_examples(
    layer: Callable[..., nn.Module], x: Array, dtype_fields: dict[str, Any]
) -> Array:  # [B, ..., C] -> [B, ..., C], as a new submodule
    """Normalize each example separately, then apply a scale and shift per channel.

    Args:
      layer: nn.InstanceNorm, or nn.LayerNorm over all axes of an example.
      x: [B, ..., C].
      dtype_fields: {dtype, param_dtype} of the layer.
    """
    return layer(epsilon=1e-5, use_fast_variance=False, **dtype_fields)(x)


# Normalization of [B, ..., C] by its name in configs: (x, train, dtype_fields) -> x. A
# layer before a normalization needs no bias.
NORMS = {
    "none": lambda x, train, dtype_fields: x,
    "batch": lambda x, train, dtype_fields: BatchNorm(**dtype_fields)(x, train),
    # "layer": over all values of an example (Ba et al. 2016; of images as in Gulrajani
    # et al. 2017, section 4); "instance": over each channel (Ulyanov et al. 2016)
    "layer": lambda x, train, dtype_fields: normalize_examples(
        partial(nn.LayerNorm, reduction_axes=tuple(range(1, x.ndim))), x, dtype_fields
    ),
    "instance": lambda x, train, dtype_fields: normalize_examples(nn.InstanceNorm, x, dtype_fields),
}


def apply_norm(
    norm: str, x: Array, train: bool, dtype_fields: dict[str, Any]
) -> Array:  # [B, ..., C] -> [B, ..., C], as a new submodule
    """Apply a normalization as a submodule of the module whose __call__ is running.

    Args:
      norm: a key of NORMS.
      x: [B, ..., C].
      train: whether "batch" uses and updates the statistics of the batch; unused by the
        others.
      dtype_fields: {dtype, param_dtype} of the layer.
    """
    return NORMS[norm](x, train, dtype_fields)


class Network(nn.Module):
    """Base class of the networks that a config describes."""

    @property
    def compiler_options(self) -> dict[str, dict]:  # {platform: {option: value}}
        """The compiler options that suit the network, by platform, as in `Method`."""
        return {}

    def config_error(self) -> str:  # '' if valid
        """Return an error message if the fields do not suit the shape of the data,
        or ''.
        """
        return ""


def round_up_vocabulary(vocabulary: int) -> int:  # to a multiple of 128
    """Return the number of rows of an embedding table and of logits: the vocabulary
    rounded up to a multiple of 128, which divides over devices and fills their lanes.
    """
    return -(-vocabulary // 128) * 128


def first_max(x: Array) -> Array:  # [..., K] -> [...], values; gradient to the first maximum
    """Return the maximum along the last axis, whose gradient goes to the first maximum.

    The gradient of `max` divides by the number of values equal to the maximum, and none
    is equal where a program computes the values twice with different rounding.
    """
    first = jnp.argmax(x, axis=-1, keepdims=True)
    return jnp.where(jnp.arange(x.shape[-1]) == first, x, 0).sum(-1)


def mask_logits(
    logits: Array, vocabulary: int
) -> Array:  # [..., V] -> [..., V], -1e9 at ids from `vocabulary` on
    """Return the logits, with those of ids past the vocabulary set to -1e9, so that
    they have no probability and no gradient.

    Args:
      logits: [..., V], V from `round_up_vocabulary`.
      vocabulary: number of the valid ids.
    """
    return jnp.where(
        jnp.arange(logits.shape[-1]) < vocabulary, logits, jnp.asarray(-1e9, logits.dtype)
    )


def dropout(
    module: nn.Module, x: Array, rate: float
) -> Array:  # [...] -> [...], x itself without a "dropout" key
    """Return each value as x / (1 - rate) with probability 1 - rate, else 0 (Srivastava
    et al. 2014); without a "dropout" key in `apply`, return x.

    The rate is rounded to a multiple of 2^-16, so that a value needs 16 random bits:
    their generation dominates the time of dropout on CPUs.

    Args:
      module: the module whose __call__ is running, which makes the random key.
      x: an array of any shape.
      rate: probability that a value is dropped, in [0, 1); 0 returns x.
    """
    if not rate or not module.has_rng("dropout"):
        return x
    threshold = round((1 - rate) * 2**16)
    bits = jax.random.bits(module.make_rng("dropout"), x.shape, jnp.uint16)
    return jnp.where(bits < threshold, x * (2**16 / threshold), 0)


# Pixels a side of the smallest image in a network whose depth follows from the data.
LEAST = 4


def halving_channels(
    shape: Sequence[int], width: int | None
) -> tuple[int, ...]:  # channels after each halving, the first is width
    """Return the channels after each halving of an image.

    The image is halved as long as its sides are even and the halves have at least 4
    pixels a side. Each halving doubles the channels, up to 8 width (Radford et al.
    2016, figure 1). Width 64: 28x28 -> (64, 128), 64x64 -> (64, 128, 256, 512).

    Args:
      shape: (H, W, ...) of the images.
      width: channels after the first halving.
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


def divisibility_error(
    channels: Sequence[int], shape: tuple[int, ...]
) -> str:  # '' if len(channels) halvings are possible
    """Return an error message if a layer cannot halve its images, or ''.

    Args:
      channels: after each halving.
      shape: (H, W, ...) of the images.
    """
    times = 2 ** len(channels)
    is_divisible = shape[0] % times == shape[1] % times == 0
    return (
        ""
        if is_divisible
        else f"channels = {channels} halve images {len(channels)} times, and {shape[0]} x "
        f"{shape[1]} pixels are not divisible by {times}"
    )


def channels_or_width_error(net: nn.Module) -> str:  # '' if exactly one is set, and suffices
    """Return an error message if `channels` or `width` and the shape of the data do not
    determine the layers of a network, or ''.

    Args:
      net: a network with the fields or properties `shape`, `channels`, `width` and
        `layer_channels`.
    """
    if len(net.shape) != 3:
        return (
            f"channels = {net.channels} are for images, and the data have the shape "
            f"{list(net.shape)}"
        )
    if bool(net.channels) == bool(net.width):
        return (
            "channels (of each layer) or width (for as many layers as the images allow) must be "
            "set, but not both"
        )
    height, width, _ = net.shape
    return (
        ""
        if net.layer_channels
        else f"width = {net.width}: {height} x {width} pixels cannot be halved to {LEAST} or "
        "more; change the size of the images"
    )

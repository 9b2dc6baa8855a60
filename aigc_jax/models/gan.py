"""Generators [B, Z] -> [B, *shape] and discriminators [B, *shape] -> [B] (logits)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.conv import Conv, ConvTranspose
from aigc_jax.models.layers import ACTIVATIONS


class MLPGenerator(nn.Module):
    """Dense layers of the given widths, then one to the data's shape: z 100 -> 256 ReLU -> 784 tanh with widths (256,)."""

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    output: str  # "tanh" for pictures in [-1, 1], "identity" for points
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z):  # [B, Z] -> [B, *shape]
        x = z
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        x = nn.Dense(math.prod(self.shape), dtype=self.dtype, param_dtype=self.param_dtype)(x)
        return ACTIVATIONS[self.output](x).reshape(-1, *self.shape)


class MLPDiscriminator(nn.Module):
    """Dense layers of the given widths, then one to a logit: 784 -> 256 LeakyReLU 0.2 -> 1 with widths (256,)."""

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):  # [B, *shape] -> [B]
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        return nn.Dense(1, dtype=self.dtype, param_dtype=self.param_dtype)(x)[:, 0]


class DCGenerator(nn.Module):
    """A dense layer to small pictures, then transposed convolutions that double their size, then one to the data's channels
    (after Radford et al. 2016, section 3, without batch normalization): z 100 -> 7x7x128 -> 14x14x128 -> 28x28x64 -> 28x28x1
    with base 128 and channels (128, 64)."""

    shape: tuple[int, int, int]
    base: int  # channels of the smallest picture
    channels: tuple[int, ...]  # of each doubling
    kernel: int
    activation: str
    output: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z):  # [B, Z] -> [B, H, W, C]
        act, types = ACTIVATIONS[self.activation], dict(dtype=self.dtype, param_dtype=self.param_dtype)
        height, width, colours = self.shape
        doublings = len(self.channels)
        small = (height >> doublings, width >> doublings, self.base)
        x = act(nn.Dense(math.prod(small), **types)(z)).reshape(-1, *small)
        for features in self.channels:
            x = act(ConvTranspose(features, (self.kernel,) * 2, strides=2, **types)(x))
        return ACTIVATIONS[self.output](ConvTranspose(colours, (self.kernel,) * 2, **types)(x))


class DCDiscriminator(nn.Module):
    """Convolutions that halve the picture, then a dense layer to a logit: 28x28x1 -> 14x14x64 -> 7x7x128 -> 1 with channels
    (64, 128)."""

    shape: tuple[int, int, int]
    channels: tuple[int, ...]  # of each halving
    kernel: int
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for features in self.channels:
            x = ACTIVATIONS[self.activation](Conv(features, (self.kernel,) * 2, strides=2, **types)(x))
        return nn.Dense(1, **types)(x.reshape(x.shape[0], -1))[:, 0]


# config.network -> (generator, discriminator)
NETWORKS = {"mlp": (MLPGenerator, MLPDiscriminator), "dcgan": (DCGenerator, DCDiscriminator)}

"""Generators [B, Z] -> [B, *shape] and discriminators [B, *shape] -> [B] (logits)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

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


# config.network -> (generator, discriminator)
NETWORKS = {"mlp": (MLPGenerator, MLPDiscriminator)}

"""Generators [B, Z] -> [B, *shape] and discriminators [B, *shape] -> [B] (logits).

Every network is called as net(x, train): with train, batch normalization takes the statistics of the batch and updates its
running ones (the collection "batch_stats"); without, it takes the running ones. `misfit()` says in what the fields do not
suit the shape of the data, or ''.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.conv import Conv, ConvTranspose
from aigc_jax.models.layers import ACTIVATIONS, Network, halvings, normalize, unclear


class MLPGenerator(Network):
    """Dense layers of the given widths, then one to the data's shape: z 100 -> 256 ReLU -> 784 tanh with widths (256,)."""

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    output: str  # "tanh" for pictures in [-1, 1], "identity" for points
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z, train=False):  # [B, Z] -> [B, *shape]
        x = z
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        x = nn.Dense(math.prod(self.shape), dtype=self.dtype, param_dtype=self.param_dtype)(x)
        return ACTIVATIONS[self.output](x).reshape(-1, *self.shape)


class MLPDiscriminator(Network):
    """Dense layers of the given widths, then one to a logit: 784 -> 256 LeakyReLU 0.2 -> 1 with widths (256,)."""

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):  # [B, *shape] -> [B]
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = ACTIVATIONS[self.activation](nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        return nn.Dense(1, dtype=self.dtype, param_dtype=self.param_dtype)(x)[:, 0]


class DCGenerator(Network):
    """A dense layer to small pictures, then transposed convolutions that double their size, then one to the data's channels
    (after Radford et al. 2016, section 3): z 100 -> 7x7x128 -> 14x14x128 -> 28x28x64 -> 28x28x1 with channels (128, 64), or
    with width 64. With last_stride 2 the last layer doubles too. `dense` puts layers of these widths before the small pictures,
    as Chen et al. 2016 (appendix C.1) do for MNIST: (1024,). Normalization, where there is any, is on all layers but the last."""

    shape: tuple[int, int, int]
    kernel: int
    activation: str
    output: str
    channels: tuple[int, ...] = ()  # of each doubling; else
    width: int | None = None  # of the last one, from which the others follow (`halvings`)
    base: int | None = None  # channels of the smallest picture; those of the first doubling if not given
    dense: tuple[int, ...] = ()
    last_stride: int = 1
    norm: str = "none"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def layers(self):
        return self.channels or halvings([n // self.last_stride for n in self.shape], self.width)[::-1]

    @property
    def times(self):
        return 2 ** len(self.layers) * self.last_stride

    def misfit(self):
        if unclear(self):
            return unclear(self)
        height, width, _ = self.shape
        if height % self.times or width % self.times:
            return (f"channels = {self.layers} with last_stride = {self.last_stride} draw multiples of {self.times} pixels, "
                    f"not {height} x {width}; another number of channels or another size of the pictures would do")
        return ""

    @nn.compact
    def __call__(self, z, train=False):  # [B, Z] -> [B, H, W, C]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        height, width, colours = self.shape
        small = (height // self.times, width // self.times, self.base or self.layers[0])

        x = z
        for features in self.dense:
            x = nn.Dense(features, use_bias=self.norm == "none", **types)(x)
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        x = nn.Dense(math.prod(small), use_bias=self.norm == "none", **types)(x).reshape(-1, *small)
        x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        for features in self.layers:
            x = ConvTranspose(features, (self.kernel,) * 2, strides=2, use_bias=self.norm == "none", **types)(x)
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        return ACTIVATIONS[self.output](ConvTranspose(colours, (self.kernel,) * 2, strides=self.last_stride, **types)(x))


class DCDiscriminator(Network):
    """Convolutions that halve the picture, then a dense layer to a logit: 28x28x1 -> 14x14x64 -> 7x7x128 -> 1 with channels
    (64, 128), or with width 64; `dense` puts layers of these widths before the logit (Chen et al. 2016, appendix C.1). Normalization,
    where there is any, is on all layers but the first and the last (Radford et al. 2016, section 3)."""

    shape: tuple[int, int, int]
    kernel: int
    activation: str
    channels: tuple[int, ...] = ()  # of each halving; else
    width: int | None = None  # of the first one, from which the others follow (`halvings`)
    dense: tuple[int, ...] = ()
    norm: str = "none"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def layers(self):
        return self.channels or halvings(self.shape, self.width)

    def misfit(self):
        if unclear(self):
            return unclear(self)
        height, width, _ = self.shape
        most = min(height, width).bit_length() - 1
        return "" if len(self.layers) <= most else f"channels = {self.layers} halve {height} x {width} pictures more than {most} times"

    @nn.compact
    def __call__(self, x, train=False):  # [B, H, W, C] -> [B]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, features in enumerate(self.layers):
            norm = self.norm if i else "none"
            x = Conv(features, (self.kernel,) * 2, strides=2, use_bias=norm == "none", **types)(x)
            x = ACTIVATIONS[self.activation](normalize(norm, x, train, types))
        x = x.reshape(x.shape[0], -1)
        for features in self.dense:
            x = nn.Dense(features, use_bias=self.norm == "none", **types)(x)
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        return nn.Dense(1, **types)(x)[:, 0]


# config.network -> (generator, discriminator)
NETWORKS = {"mlp": (MLPGenerator, MLPDiscriminator), "dcgan": (DCGenerator, DCDiscriminator)}

"""Residual generators and discriminators for small images: those of SN-GAN and, with
other widths and pooling, of WGAN-GP.

A block of a generator is x + conv(relu(norm(conv(up(relu(norm x)))))), a block of a
discriminator x + down(conv(relu(conv(relu x)))), with 3x3 kernels and, where the size
or the channels change, a 1x1 kernel on the shortcut (Miyato et al. 2018, figure 8 and
table 4; Gulrajani et al. 2017, appendix C).
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.conv import conv_mean_pool, upsample_conv
from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.layers import ACTIVATIONS, LEAST, Network, apply_norm
from aigc_jax.models.spectral_norm import apply_conv, apply_dense

# Initializers of the two 3x3 layers of a block, which follow a ReLU, and of others.
BLOCK = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
OTHER = nn.initializers.xavier_uniform()
# Fields of a convolution of images at twice their size, and of one whose means over 2x2
# pixels are taken.
DOUBLED: dict[str, Any] = dict(strides=2, apply_to=upsample_conv)
HALVED: dict[str, Any] = dict(strides=2, apply_to=conv_mean_pool)
POOLS = {"sum": jnp.sum, "mean": jnp.mean}


def upsample(x: Array) -> Array:  # [B, H, W, C] -> [B, 2 H, 2 W, C], nearest neighbour
    """Return the images at twice their size, with every pixel repeated 2x2 times."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def downsample(x: Array) -> Array:  # [B, H, W, C] -> [B, H / 2, W / 2, C], means
    """Return the images at half their size; every pixel is the mean of four."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def apply_conv_3x3(
    net: nn.Module, x: Array, features: int, train: bool, **layer_fields: Any
) -> Array:  # [B, H, W, C] -> [B, H, W, features], or as layer_fields say
    """Apply a 3x3 convolution with the initializer BLOCK as a submodule of `net`. The
    arguments are those of `apply_conv`.
    """
    fields: dict[str, Any] = dict(kernel_size=(3, 3), kernel_init=BLOCK) | layer_fields
    return apply_conv(net, x, features, train, **fields)


def apply_conv_1x1(
    net: nn.Module, x: Array, features: int, train: bool
) -> Array:  # [B, H, W, C] -> [B, H, W, features]
    """Apply a 1x1 convolution as a submodule of `net`; return [B, H, W, features]. The
    arguments are those of `apply_conv`.
    """
    return apply_conv(net, x, features, train, kernel_size=(1, 1), kernel_init=OTHER)


def halving_error(net: nn.Module, count_field: str) -> str:  # '' if possible
    """Return an error message if the data cannot be halved to at least LEAST pixels a
    side as many times as this field of the network requires, or ''.

    Args:
      net: a network with the fields `shape` and `width`.
      count_field: name of the field with the number of halvings: "ups" or "downs".
    """
    times = getattr(net, count_field)
    if len(net.shape) != 3:
        return f"width = {net.width} is for images, and the data have the shape {list(net.shape)}"
    height, width = net.shape[:2]
    unit = 2**times
    good = height % unit == width % unit == 0 and min(height, width) >= LEAST * unit
    return (
        ""
        if good
        else f"{count_field} = {times}: {height} x {width} pixels cannot be halved {times} times "
        f"to {LEAST} or more"
    )


class ResNetGenerator(Network):
    """A residual generator: z -> a dense layer to images of H / 2^ups -> `ups` blocks
    that double the size -> norm, ReLU, 3x3 to the channels of the data, tanh.

    SN-GAN on 32x32 has width 256 and ups 3; WGAN-GP has width 128.
    """

    shape: tuple[int, int, int]
    width: int
    ups: int
    output: str
    activation: str = "relu"
    norm: str = "batch"
    spectral: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def config_error(self) -> str:  # '' if `ups` doublings produce `shape`
        """Return an error message if doubling `ups` times cannot produce the size of
        the data, or ''.
        """
        return halving_error(self, "ups")

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Array:  # [B, Z] -> [B, H, W, C]
        """Return images [B, H, W, C] from noise [B, Z]."""
        act = ACTIVATIONS[self.activation]
        norm = lambda x: apply_norm(
            self.norm, x, train, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        )
        height, width, colours = self.shape
        small = (height >> self.ups, width >> self.ups, self.width)
        x = apply_dense(self, z, math.prod(small), train, kernel_init=OTHER).reshape(-1, *small)
        for _ in range(self.ups):
            y = apply_conv_3x3(self, act(norm(x)), self.width, train, **DOUBLED)
            y = apply_conv_3x3(self, act(norm(y)), self.width, train)
            # A 1x1 kernel before doubling equals one after it at a quarter of the cost.
            x = y + upsample(apply_conv_1x1(self, x, self.width, train))
        x = apply_conv_3x3(self, act(norm(x)), colours, train, kernel_init=OTHER)
        return ACTIVATIONS[self.output](x)


class ResNetDiscriminator(Discriminator):
    """A residual discriminator: `downs` blocks that halve the size, `flats` blocks that
    do not, ReLU, the sum or the mean over positions, and a logit.

    SN-GAN on 32x32 has width 128, downs 2, flats 2 and pool "sum"; WGAN-GP has pool
    "mean".
    """

    shape: tuple[int, int, int]
    width: int
    downs: int
    flats: int
    pool: str
    activation: str = "relu"

    choices = dict(pool=POOLS)

    def config_error(self) -> str:  # '' if `shape` can be halved `downs` times
        """Return an error message if the data cannot be halved `downs` times, or ''."""
        return halving_error(self, "downs")

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, label: Array | None = None
    ) -> tuple[Array, Array | None]:  # [B, H, W, C], [B, K] -> [B], [B, K]
        """Return the logits of images, and the logits of the K classes or None."""
        act = ACTIVATIONS[self.activation]
        norm = lambda x: apply_norm(
            self.norm, x, train, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        )
        for i in range(self.downs + self.flats):
            halves = i < self.downs
            # The first block applies no ReLU to the image.
            y = apply_conv_3x3(self, act(norm(x)) if i else x, self.width, train)
            y = apply_conv_3x3(self, act(norm(y)), self.width, train, **(HALVED if halves else {}))
            x = y + (apply_conv_1x1(self, downsample(x), self.width, train) if halves else x)
        return self.head_logits(POOLS[self.pool](act(norm(x)), axis=(1, 2)), label, train)

"""Residual generators and discriminators for small pictures: those of SN-GAN and, with
other widths and pooling, of WGAN-GP.

A generator's block is x + conv(relu(norm(conv(up(relu(norm x)))))), a discriminator's x
+ down(conv(relu(conv(relu x)))), with 3x3 kernels and, where size or channels change, a
1x1 kernel on the other way (Miyato et al. 2018, figure 8 and table 4; Gulrajani et al.
2017, appendix C).
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.layers import ACTIVATIONS, LEAST, Network, normalize
from aigc_jax.models.spectral_norm import conv, dense

# Initialization of the two 3x3 layers of a block, which follow a ReLU, and of others.
BLOCK = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
OTHER = nn.initializers.xavier_uniform()
POOLS = {"sum": jnp.sum, "mean": jnp.mean}


def up(x):  # [B, H, W, C] -> [B, 2 H, 2 W, C]
    """Return the images at twice their size, every pixel as four."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def down(x):  # [B, H, W, C] -> [B, H / 2, W / 2, C]
    """Return the images at half their size, every pixel the mean of four."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def three(net, x, features, train, init=BLOCK):
    """Apply a 3x3 convolution as a layer of `net`; return [B, H, W, features]."""
    return conv(net, x, features, train, kernel_size=(3, 3), kernel_init=init)


def one(net, x, features, train):
    """Apply a 1x1 convolution as a layer of `net`; return [B, H, W, features]."""
    return conv(net, x, features, train, kernel_size=(1, 1), kernel_init=OTHER)


def whole(net, times) -> str:
    """Return why the data cannot be halved so often to LEAST pixels a side, or ''."""
    if len(net.shape) != 3:
        return (
            f"width = {net.width} is of convolutions for pictures, and the data are points "
            f"{list(net.shape)}"
        )
    height, width = net.shape[:2]
    unit = 2**times
    good = height % unit == width % unit == 0 and min(height, width) >= LEAST * unit
    return (
        ""
        if good
        else f"size: {height} x {width} pixels cannot be halved {times} times to {LEAST} or more"
    )


class ResNetGenerator(Network):
    """z -> a dense layer to pictures of H / 2^ups -> `ups` blocks that double -> norm,
    ReLU, 3x3 to the data's channels, tanh. SN-GAN on 32x32: width 256, ups 3; WGAN-GP:
    width 128.
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

    def misfit(self):
        """Return why the smallest images cannot be doubled `ups` times to the data's
        size, or ''.
        """
        return whole(self, self.ups)

    @nn.compact
    def __call__(self, z, train=False):  # [B, Z] -> [B, H, W, C]
        """Return images [B, H, W, C] of noise [B, Z]."""
        act = ACTIVATIONS[self.activation]
        norm = lambda x: normalize(
            self.norm, x, train, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        )
        height, width, colours = self.shape
        small = (height >> self.ups, width >> self.ups, self.width)
        x = dense(self, z, math.prod(small), train, kernel_init=OTHER).reshape(-1, *small)
        for _ in range(self.ups):
            y = three(self, up(act(norm(x))), self.width, train)
            y = three(self, act(norm(y)), self.width, train)
            # a 1x1 kernel before the doubling equals one after it, for a quarter
            x = y + up(one(self, x, self.width, train))
        return ACTIVATIONS[self.output](three(self, act(norm(x)), colours, train, OTHER))


class ResNetDiscriminator(Discriminator):
    """`downs` blocks that halve, then `flats` that do not, then ReLU, the sum or the
    mean over places, a logit. SN-GAN on 32x32: width 128, downs 2, flats 2, pool "sum";
    WGAN-GP: pool "mean".
    """

    shape: tuple[int, int, int]
    width: int
    downs: int
    flats: int
    pool: str
    activation: str = "relu"

    choices = dict(pool=POOLS)

    def misfit(self):
        """Return why the data cannot be halved `downs` times, or ''."""
        return whole(self, self.downs)

    @nn.compact
    def __call__(self, x, train=False, label=None):  # [B, H, W, C], [B, K] -> [B], [B, K]
        """Return the logits of images, and those of the K classes or None."""
        act = ACTIVATIONS[self.activation]
        norm = lambda x: normalize(
            self.norm, x, train, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        )
        for i in range(self.downs + self.flats):
            first, smaller = i == 0, down if i < self.downs else lambda x: x
            # the picture itself comes through no ReLU
            y = three(self, x if first else act(norm(x)), self.width, train)
            y = smaller(three(self, act(norm(y)), self.width, train))
            x = y + (x if i >= self.downs else one(self, smaller(x), self.width, train))
        return self.verdict(POOLS[self.pool](act(norm(x)), axis=(1, 2)), label, train)

"""Generators [B, Z] -> [B, *shape] and discriminators [B, *shape] -> logits [B].

Every network is called as net(x, train): with train, batch normalization takes the
statistics of the batch and updates its running ones (the collection "batch_stats"), and
spectral normalization goes on (the collection "spectral"); without, nothing changes.
`misfit()` says in what the fields do not suit the shape of the data, or ''.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.gan_mlp import MLPDiscriminator, MLPGenerator, of_points
from aigc_jax.models.gan_resnet import ResNetDiscriminator, ResNetGenerator
from aigc_jax.models.layers import ACTIVATIONS, Network, halvings, normalize, unclear
from aigc_jax.models.spectral_norm import conv, dense


class DCGenerator(Network):
    """A dense layer to small pictures, then transposed convolutions that double their
    size, then one to the data's channels (after Radford et al. 2016, section 3): z 100
    -> 7x7x128 -> 14x14x128 -> 28x28x64 -> 28x28x1 with channels (128, 64), or with
    width 64. With last_stride 2 the last layer doubles too. `dense` puts layers of
    these widths before the small pictures, as Chen et al. 2016 (appendix C.1) do for
    MNIST: (1024,). Normalization, where there is any, is on all layers but the last.
    """

    shape: tuple[int, int, int]
    kernel: int
    activation: str
    output: str
    channels: tuple[int, ...] = ()  # of each doubling; else
    width: int | None = None  # of the last one, from which the others follow (`halvings`)
    # channels of the smallest images; None: those of the first doubling
    base: int | None = None
    dense: tuple[int, ...] = ()
    last_stride: int = 1
    norm: str = "none"
    spectral: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def layers(self):
        """The channels of every doubling, from the smallest images up."""
        return (
            self.channels or halvings([n // self.last_stride for n in self.shape], self.width)[::-1]
        )

    @property
    def times(self):
        """How many times larger the output is than the smallest images, per side."""
        return 2 ** len(self.layers) * self.last_stride

    def misfit(self):
        """Return why the layers do not lead to the size of the data, or ''."""
        if unclear(self):
            return unclear(self)
        height, width, _ = self.shape
        if height % self.times or width % self.times:
            return (
                f"channels = {self.layers} with last_stride = {self.last_stride} draw "
                f"multiples of {self.times} pixels, "
                f"not {height} x {width}; another number of channels or another size of the "
                "pictures would do"
            )
        return of_points(self) if self.dense else ""

    @nn.compact
    def __call__(self, z, train=False):  # [B, Z] -> [B, H, W, C]
        """Return images [B, H, W, C] of noise [B, Z]."""
        types, free = dict(dtype=self.dtype, param_dtype=self.param_dtype), self.norm == "none"
        height, width, colours = self.shape
        small = (height // self.times, width // self.times, self.base or self.layers[0])

        x, kernel = z, (self.kernel,) * 2
        for features in self.dense:
            x = dense(self, x, features, train, use_bias=free)
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        x = dense(self, x, math.prod(small), train, use_bias=free).reshape(-1, *small)
        x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        for features in self.layers:
            x = conv(
                self,
                x,
                features,
                train,
                transpose=True,
                kernel_size=kernel,
                strides=2,
                use_bias=free,
            )
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        return ACTIVATIONS[self.output](
            conv(
                self,
                x,
                colours,
                train,
                transpose=True,
                kernel_size=kernel,
                strides=self.last_stride,
            )
        )


class DCDiscriminator(Discriminator):
    """Convolutions that halve the picture, then a dense layer to a logit: 28x28x1 ->
    14x14x64 -> 7x7x128 -> 1 with channels (64, 128), or with width 64; `dense` puts
    layers of these widths before the logit (Chen et al. 2016, appendix C.1).
    Normalization, where there is any, is on all layers but the first and the last
    (Radford et al. 2016, section 3).
    """

    shape: tuple[int, int, int]
    kernel: int
    activation: str
    channels: tuple[int, ...] = ()  # of each halving; else
    width: int | None = None  # of the first one, from which the others follow (`halvings`)
    dense: tuple[int, ...] = ()

    @property
    def layers(self):
        """The channels of every halving, from the data down."""
        return self.channels or halvings(self.shape, self.width)

    def misfit(self):
        """Return why the data cannot be halved once a layer, or ''."""
        if unclear(self):
            return unclear(self)
        height, width, _ = self.shape
        most = min(height, width).bit_length() - 1
        if len(self.layers) > most:
            return (
                f"channels = {self.layers} halve {height} x {width} pictures more than {most} times"
            )
        return of_points(self) if self.dense else ""

    @nn.compact
    def __call__(self, x, train=False, label=None):  # [B, H, W, C], [B, K] -> [B], [B, K]
        """Return the logits of images, and those of the K classes or None."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, features in enumerate(self.layers):
            norm = self.norm if i else "none"
            x = conv(
                self,
                x,
                features,
                train,
                kernel_size=(self.kernel,) * 2,
                strides=2,
                use_bias=norm == "none",
            )
            x = ACTIVATIONS[self.activation](normalize(norm, x, train, types))
        x = x.reshape(x.shape[0], -1)
        for features in self.dense:
            x = dense(self, x, features, train, use_bias=self.norm == "none")
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        return self.verdict(x, label, train)


# config.network -> (generator, discriminator)
NETWORKS = {
    "mlp": (MLPGenerator, MLPDiscriminator),
    "dcgan": (DCGenerator, DCDiscriminator),
    "resnet": (ResNetGenerator, ResNetDiscriminator),
}

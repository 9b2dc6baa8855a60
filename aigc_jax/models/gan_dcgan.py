"""DCGAN networks, and the table of all GAN networks: generators [B, Z] -> [B, *shape]
and discriminators [B, *shape] -> logits [B].

Every network is called as net(x, train). With `train`, batch normalization uses the
statistics of the batch and updates its running statistics (the collection
"batch_stats"), and spectral normalization runs one power iteration (the collection
"spectral"). Without `train`, no collection changes. `config_error()` returns an error
message if the fields do not suit the shape of the data, or ''.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.gan_mlp import MLPDiscriminator, MLPGenerator, instance_norm_error
from aigc_jax.models.gan_resnet import ResNetDiscriminator, ResNetGenerator
from aigc_jax.models.layers import (
    ACTIVATIONS,
    Network,
    apply_norm,
    channels_or_width_error,
    halving_channels,
)
from aigc_jax.models.spectral_norm import apply_conv, apply_dense


class DCGenerator(Network):
    """A dense layer to small images, transposed convolutions that double their size,
    and one to the channels of the data (after Radford et al. 2016, section 3).

    z 100 -> 7x7x128 -> 14x14x128 -> 28x28x64 -> 28x28x1 with channels (128, 64), or
    with width 64. With last_stride 2 the last layer doubles the size too. `dense`
    inserts layers of these widths before the small images, as Chen et al. 2016
    (appendix C.1) do for MNIST: (1024,). All layers but the last are normalized, if
    `norm` is not "none".
    """

    shape: tuple[int, int, int]
    kernel: int
    activation: str
    output: str
    channels: tuple[int, ...] = ()  # of each doubling; or, instead of them,
    width: int | None = None  # those of the last one, for `halving_channels`
    # channels of the smallest images; None: those of the first doubling
    base: int | None = None
    dense: tuple[int, ...] = ()
    last_stride: int = 1
    norm: str = "none"
    spectral: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def layer_channels(self) -> tuple[int, ...]:  # smallest images first
        """The channels of every doubling, from the smallest images to the largest."""
        return (
            self.channels
            or halving_channels([n // self.last_stride for n in self.shape], self.width)[::-1]
        )

    @property
    def side_ratio(self) -> int:  # output / smallest images
        """The ratio of the output's side to that of the smallest images."""
        return 2 ** len(self.layer_channels) * self.last_stride

    def config_error(self) -> str:  # '' if the layers produce `shape`
        """Return an error message if the layers do not produce the size of the data,
        or ''.
        """
        if channels_or_width_error(self):
            return channels_or_width_error(self)
        height, width, _ = self.shape
        if height % self.side_ratio or width % self.side_ratio:
            return (
                f"channels = {self.layer_channels} with last_stride = {self.last_stride} generate "
                f"multiples of {self.side_ratio} pixels, not {height} x {width}; change the number "
                "of channels or the size of the images"
            )
        return instance_norm_error(self) if self.dense else ""

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Array:  # [B, Z] -> [B, H, W, C]
        """Return images [B, H, W, C] from noise [B, Z]."""
        dtype_fields = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        free = self.norm == "none"
        height, width, colours = self.shape
        small = (
            height // self.side_ratio,
            width // self.side_ratio,
            self.base or self.layer_channels[0],
        )

        x, kernel = z, (self.kernel,) * 2
        for features in self.dense:
            x = apply_dense(self, x, features, train, use_bias=free)
            x = ACTIVATIONS[self.activation](apply_norm(self.norm, x, train, dtype_fields))
        x = apply_dense(self, x, math.prod(small), train, use_bias=free).reshape(-1, *small)
        x = ACTIVATIONS[self.activation](apply_norm(self.norm, x, train, dtype_fields))
        for features in self.layer_channels:
            x = apply_conv(
                self,
                x,
                features,
                train,
                transpose=True,
                kernel_size=kernel,
                strides=2,
                use_bias=free,
            )
            x = ACTIVATIONS[self.activation](apply_norm(self.norm, x, train, dtype_fields))
        return ACTIVATIONS[self.output](
            apply_conv(
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
    """Convolutions that halve the image, then a dense layer to a logit.

    28x28x1 -> 14x14x64 -> 7x7x128 -> 1 with channels (64, 128), or with width 64.
    `dense` inserts layers of these widths before the logit (Chen et al. 2016, appendix
    C.1). All layers but the first and the last are normalized (Radford et al. 2016,
    section 3), if `norm` is not "none".
    """

    shape: tuple[int, int, int]
    kernel: int
    activation: str
    channels: tuple[int, ...] = ()  # of each halving; or, instead of them,
    width: int | None = None  # those of the first one, for `halving_channels`
    dense: tuple[int, ...] = ()

    @property
    def layer_channels(self) -> tuple[int, ...]:  # largest images first
        """The channels of every halving, from the largest images to the smallest."""
        return self.channels or halving_channels(self.shape, self.width)

    def config_error(self) -> str:  # '' if every layer can halve `shape`
        """Return an error message if a layer cannot halve the data, or ''."""
        if channels_or_width_error(self):
            return channels_or_width_error(self)
        height, width, _ = self.shape
        most = min(height, width).bit_length() - 1
        if len(self.layer_channels) > most:
            return (
                f"channels = {self.layer_channels} halve {height} x {width} images more than "
                f"{most} times"
            )
        return instance_norm_error(self) if self.dense else ""

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, label: Array | None = None
    ) -> tuple[Array, Array | None]:  # [B, H, W, C], [B, K] -> [B], [B, K]
        """Return the logits of images, and the logits of the K classes or None."""
        dtype_fields = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, features in enumerate(self.layer_channels):
            norm = self.norm if i else "none"
            x = apply_conv(
                self,
                x,
                features,
                train,
                kernel_size=(self.kernel,) * 2,
                strides=2,
                use_bias=norm == "none",
            )
            x = ACTIVATIONS[self.activation](apply_norm(norm, x, train, dtype_fields))
        x = x.reshape(x.shape[0], -1)
        for features in self.dense:
            x = apply_dense(self, x, features, train, use_bias=self.norm == "none")
            x = ACTIVATIONS[self.activation](apply_norm(self.norm, x, train, dtype_fields))
        return self.head_logits(x, label, train)


# config.network -> (generator, discriminator)
NETWORKS = {
    "mlp": (MLPGenerator, MLPDiscriminator),
    "dcgan": (DCGenerator, DCDiscriminator),
    "resnet": (ResNetGenerator, ResNetDiscriminator),
}

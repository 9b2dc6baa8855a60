"""DCGAN networks, and the table of all GAN networks: generators [B, Z] -> [B, *shape]
and discriminators [B, *shape] -> logits [B].

Every network is called as net(x, train). With `train`, batch normalization uses the
statistics of the batch and updates its running statistics (the collection
"batch_stats"), and spectral normalization runs one power iteration (the collection
"spectral"). Without `train`, no collection changes. `shape_error()` returns an error
message if the fields do not suit the shape of the data, or ''.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.gan_mlp import MLPDiscriminator, MLPGenerator, of_points
from aigc_jax.models.gan_resnet import ResNetDiscriminator, ResNetGenerator
from aigc_jax.models.layers import ACTIVATIONS, Network, choice_error, count_halvings, normalize
from aigc_jax.models.spectral_norm import make_conv, make_dense


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
    width: int | None = None  # those of the last one, for `count_halvings`
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
        """The channels of every doubling, from the smallest images to the largest."""
        return (
            self.channels
            or count_halvings([n // self.last_stride for n in self.shape], self.width)[::-1]
        )

    @property
    def times(self):
        """The ratio of the output's side to that of the smallest images."""
        return 2 ** len(self.layers) * self.last_stride

    def shape_error(self) -> str:
        """Return an error message if the layers do not produce the size of the data,
        or ''.
        """
        if choice_error(self):
            return choice_error(self)
        height, width, _ = self.shape
        if height % self.times or width % self.times:
            return (
                f"channels = {self.layers} with last_stride = {self.last_stride} generate "
                f"multiples of {self.times} pixels, not {height} x {width}; change the number "
                "of channels or the size of the images"
            )
        return of_points(self) if self.dense else ""

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Array:  # [B, Z] -> [B, H, W, C]
        """Return images [B, H, W, C] from noise [B, Z]."""
        types, free = dict(dtype=self.dtype, param_dtype=self.param_dtype), self.norm == "none"
        height, width, colours = self.shape
        small = (height // self.times, width // self.times, self.base or self.layers[0])

        x, kernel = z, (self.kernel,) * 2
        for features in self.dense:
            x = make_dense(self, x, features, train, use_bias=free)
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        x = make_dense(self, x, math.prod(small), train, use_bias=free).reshape(-1, *small)
        x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        for features in self.layers:
            x = make_conv(
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
            make_conv(
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
    width: int | None = None  # those of the first one, for `count_halvings`
    dense: tuple[int, ...] = ()

    @property
    def layers(self):
        """The channels of every halving, from the largest images to the smallest."""
        return self.channels or count_halvings(self.shape, self.width)

    def shape_error(self) -> str:
        """Return an error message if a layer cannot halve the data, or ''."""
        if choice_error(self):
            return choice_error(self)
        height, width, _ = self.shape
        most = min(height, width).bit_length() - 1
        if len(self.layers) > most:
            return (
                f"channels = {self.layers} halve {height} x {width} images more than {most} times"
            )
        return of_points(self) if self.dense else ""

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, label: Array | None = None
    ) -> tuple[Array, Array | None]:  # [B, H, W, C], [B, K] -> [B], [B, K]
        """Return the logits of images, and the logits of the K classes or None."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, features in enumerate(self.layers):
            norm = self.norm if i else "none"
            x = make_conv(
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
            x = make_dense(self, x, features, train, use_bias=self.norm == "none")
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        return self.head_logits(x, label, train)


# config.network -> (generator, discriminator)
NETWORKS = {
    "mlp": (MLPGenerator, MLPDiscriminator),
    "dcgan": (DCGenerator, DCDiscriminator),
    "resnet": (ResNetGenerator, ResNetDiscriminator),
}

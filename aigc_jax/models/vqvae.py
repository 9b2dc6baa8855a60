"""The encoder and decoder of a VQ-VAE (van den Oord et al. 2017)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.conv import Conv, ConvTranspose
from aigc_jax.models.layers import ACTIVATIONS, Network, divisibility_error
from aigc_jax.models.vae import floor_log_scale


class Residual(nn.Module):
    """A residual block: x + Conv 1x1 (act (Conv 3x3 (act x))) (van den Oord et al.
    2017, section 4.1).
    """

    activation: str
    dtype_fields: dict[str, Any]

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B, H, W, C]
        """Return x plus the output of the two convolutions."""
        act, features = ACTIVATIONS[self.activation], x.shape[-1]
        y = Conv(features, (3, 3), **self.dtype_fields)(act(x))
        return x + Conv(features, (1, 1), **self.dtype_fields)(act(y))


class VQVAE(Network):
    """A convolutional encoder to a vector of `size` values at every position, and the
    decoder that mirrors it (van den Oord et al. 2017, section 4.1).

    The encoder halves the image by one strided convolution per entry of `channels`,
    then applies residual blocks and a 1x1 convolution: 28x28x1 -> 14x14x64 -> 7x7x128
    -> 7x7x16 with channels (64, 128) and size 16.
    """

    shape: tuple[int, int, int]
    scale: str  # of `methods.losses.likelihoods.Likelihood`
    size: int  # of a code
    channels: tuple[int, ...]
    kernel: int
    residual: int  # blocks in the encoder, and in the decoder
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def config_error(self) -> str:  # '' if `shape` can be halved len(channels) times
        """Return an error message if a layer cannot halve the data, or ''."""
        if len(self.shape) != 3:
            return (
                f"channels = {self.channels} are for images, and the data have the shape "
                f"{list(self.shape)}"
            )
        return divisibility_error(self.channels, self.shape)

    def setup(self) -> None:
        """Create the encoder, the decoder, and the log scale if it is one parameter."""
        dtype_fields = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        kernel, act = (self.kernel,) * 2, ACTIVATIONS[self.activation]
        outputs = self.shape[-1] * (2 if self.scale == "pixel" else 1)
        up = (*self.channels[-2::-1], outputs)
        self.down = nn.Sequential(
            [
                *(
                    layer
                    for features in self.channels
                    for layer in (Conv(features, kernel, strides=2, **dtype_fields), act)
                ),
                *(Residual(self.activation, dtype_fields) for _ in range(self.residual)),
                act,
                Conv(self.size, (1, 1), **dtype_fields),
            ]
        )
        self.up = nn.Sequential(
            [
                Conv(self.channels[-1], (3, 3), **dtype_fields),
                *(Residual(self.activation, dtype_fields) for _ in range(self.residual)),
                *(
                    layer
                    for features in up
                    for layer in (act, ConvTranspose(features, kernel, strides=2, **dtype_fields))
                ),
            ]
        )
        if self.scale == "scalar":
            self.spread = self.param("spread", nn.initializers.zeros, (), self.param_dtype)

    def encode(self, x: Array) -> Array:  # [B, H, W, C] -> [B, h, w, size], not quantized
        """Return the vector at every position, before quantization."""
        return self.down(x)

    def decode(
        self, codes: Array
    ) -> tuple[Array, Array | None]:  # [B, h, w, size] -> location [B, H, W, C], log scale
        """Return the parameters of the likelihood of the data.

        Args:
          codes: quantized vectors [B, h, w, size].

        Returns:
          The location [B, H, W, C], and the log scale: of the same shape, [] or None.
        """
        out = jnp.split(self.up(codes), 2 if self.scale == "pixel" else 1, axis=-1)
        if self.scale == "scalar":
            out.append(self.spread)
        return out[0], floor_log_scale(out[1]) if len(out) > 1 else None

    def __call__(
        self, x: Array
    ) -> tuple[Array, Array | None]:  # touches every parameter, for `init`
        """Return the decoder's output without quantization; for `init`."""
        return self.decode(self.encode(x))

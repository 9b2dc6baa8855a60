"""The encoder, decoder and codes of a VQ-VAE (van den Oord et al. 2017)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.conv import Conv, ConvTranspose
from aigc_jax.models.layers import ACTIVATIONS, Network, undivided
from aigc_jax.models.vae import floored


class Residual(nn.Module):
    """x + Conv 1x1 (act (Conv 3x3 (act x))) (van den Oord et al. 2017, section 4.1)."""

    activation: str
    types: Any

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, H, W, C]
        """Return x plus the two convolutions' output."""
        act, features = ACTIVATIONS[self.activation], x.shape[-1]
        y = Conv(features, (3, 3), **self.types)(act(x))
        return x + Conv(features, (1, 1), **self.types)(act(y))


class VQVAE(Network):
    """Convolutions that halve the picture, residual blocks, `size` numbers for every
    place, and back (van den Oord et al. 2017, section 4.1): 28x28x1 -> 14x14x64 ->
    7x7x128 -> 7x7x16 with channels (64, 128) and size 16.
    """

    shape: tuple[int, int, int]
    scale: str  # of `methods.losses.likelihoods.Likelihood`
    size: int  # of a code
    channels: tuple[int, ...]
    kernel: int
    residual: int  # blocks on either side
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def misfit(self):
        """Return why the data cannot be halved once a layer, or ''."""
        if len(self.shape) != 3:
            return (
                f"channels = {self.channels} are for pictures, and the data are points "
                f"{list(self.shape)}"
            )
        return undivided(self.channels, self.shape)

    def setup(self):
        """Create encoder and decoder, and the scale where it is one number."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        kernel, act = (self.kernel,) * 2, ACTIVATIONS[self.activation]
        outputs = self.shape[-1] * (2 if self.scale == "pixel" else 1)
        up = (*self.channels[-2::-1], outputs)
        self.down = nn.Sequential(
            [
                *(
                    layer
                    for features in self.channels
                    for layer in (Conv(features, kernel, strides=2, **types), act)
                ),
                *(Residual(self.activation, types) for _ in range(self.residual)),
                act,
                Conv(self.size, (1, 1), **types),
            ]
        )
        self.up = nn.Sequential(
            [
                Conv(self.channels[-1], (3, 3), **types),
                *(Residual(self.activation, types) for _ in range(self.residual)),
                *(
                    layer
                    for features in up
                    for layer in (act, ConvTranspose(features, kernel, strides=2, **types))
                ),
            ]
        )
        if self.scale == "scalar":
            self.spread = self.param("spread", nn.initializers.zeros, (), self.param_dtype)

    def encode(self, x):  # [B, H, W, C] -> [B, h, w, size]
        """Return a vector for every place of the image, before it becomes a code."""
        return self.down(x)

    def decode(self, codes):
        """Return the location [B, H, W, C] of codes [B, h, w, size] and its log scale,
        which is of the same shape, one number [] or None.
        """
        out = jnp.split(self.up(codes), 2 if self.scale == "pixel" else 1, axis=-1)
        if self.scale == "scalar":
            out.append(self.spread)
        return out[0], floored(out[1]) if len(out) > 1 else None

    def __call__(self, x):  # touches every parameter, for `init`
        """Return the decoded vectors, without codes; for `init`."""
        return self.decode(self.encode(x))

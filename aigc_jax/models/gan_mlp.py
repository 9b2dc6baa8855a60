"""Dense generators [B, Z] -> [B, *shape], discriminators [B, *shape] -> logits [B]."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.layers import ACTIVATIONS, Network, largest, normalize
from aigc_jax.models.spectral_norm import dense


def initial(std):
    """The keyword of a dense layer whose kernel begins as N(0, std^2); its own where
    std is None.
    """
    return {} if std is None else dict(kernel_init=nn.initializers.normal(std))


def of_points(net) -> str:
    """Return why a network of dense layers cannot have its norm, or ''."""
    return (
        "norm = 'instance' is for pictures; dense layers have one value a channel"
        if net.norm == "instance"
        else ""
    )


class MLPGenerator(Network):
    """Dense layers of the given widths, then one to the data's shape: z 100 -> 256 ReLU
    -> 784 tanh with widths (256,).
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    output: str  # "tanh" for pictures in [-1, 1], "identity" for points
    norm: str = "none"
    spectral: bool = False
    std: float | None = None  # of the first kernels; LeCun's if not given
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    misfit = of_points

    @nn.compact
    def __call__(self, z, train=False):  # [B, Z] -> [B, *shape]
        """Return examples [B, *shape] of noise [B, Z]."""
        x, types = z, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for width in self.widths:
            x = dense(self, x, width, train, use_bias=self.norm == "none", **initial(self.std))
            x = ACTIVATIONS[self.activation](normalize(self.norm, x, train, types))
        x = dense(self, x, math.prod(self.shape), train, **initial(self.std))
        return ACTIVATIONS[self.output](x).reshape(-1, *self.shape)


class MLPDiscriminator(Discriminator):
    """Dense layers of the given widths, then one to a logit: 784 -> 256 LeakyReLU 0.2
    -> 1 with widths (256,). With `pieces` above 1 a layer takes the largest of so many
    linear functions before its activation (maxout, Goodfellow et al. 2013).
    Normalization, where there is any, is on all layers but the first.
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    pieces: int = 1
    std: float | None = None  # of the first kernels; LeCun's if not given

    misfit = of_points

    @nn.compact
    def __call__(self, x, train=False, label=None):  # [B, *shape], [B, K] -> [B], [B, K]
        """Return the logits of examples, and those of the K classes or None."""
        x, types = x.reshape(x.shape[0], -1), dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, width in enumerate(self.widths):
            norm = self.norm if i else "none"
            x = dense(
                self, x, width * self.pieces, train, use_bias=norm == "none", **initial(self.std)
            )
            x = x if self.pieces == 1 else largest(x.reshape(len(x), width, self.pieces))
            x = ACTIVATIONS[self.activation](normalize(norm, x, train, types))
        return self.verdict(x, label, train, **initial(self.std))

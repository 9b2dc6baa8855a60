"""MLP generators [B, Z] -> [B, *shape] and discriminators [B, *shape] -> logits [B]."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.discriminator import Discriminator
from aigc_jax.models.layers import ACTIVATIONS, Network, apply_norm, first_max
from aigc_jax.models.spectral_norm import apply_dense


def normal_kernel_init(std: float | None) -> dict[str, Any]:  # {kernel_init}, or {} for None
    """Return keyword arguments of a dense layer for an initial kernel from N(0, std^2);
    none, for the default initializer, if std is None.
    """
    return {} if std is None else dict(kernel_init=nn.initializers.normal(std))


def instance_norm_error(net: nn.Module) -> str:  # '' unless net.norm == "instance"
    """Return an error message if dense layers do not support the norm, or ''."""
    return (
        "norm = 'instance' is for images; dense layers have one value per channel"
        if net.norm == "instance"
        else ""
    )


class MLPGenerator(Network):
    """Dense layers of these widths, then one to the shape of the data: z 100 -> 256
    ReLU -> 784 tanh with widths (256,).
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    output: str  # "tanh" for images in [-1, 1], "identity" for points
    norm: str = "none"
    spectral: bool = False
    std: float | None = None  # of the initial kernels; None: LeCun's initializer
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    config_error = instance_norm_error

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Array:  # [B, Z] -> [B, *shape]
        """Return samples [B, *shape] from noise [B, Z]."""
        x, dtype_fields = z, dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for width in self.widths:
            x = apply_dense(
                self, x, width, train, use_bias=self.norm == "none", **normal_kernel_init(self.std)
            )
            x = ACTIVATIONS[self.activation](apply_norm(self.norm, x, train, dtype_fields))
        x = apply_dense(self, x, math.prod(self.shape), train, **normal_kernel_init(self.std))
        return ACTIVATIONS[self.output](x).reshape(-1, *self.shape)


class MLPDiscriminator(Discriminator):
    """Dense layers of these widths, then one to a logit: 784 -> 256 LeakyReLU 0.2 -> 1
    with widths (256,).

    With `maxout_pieces` above 1, a layer takes the maximum of as many linear
    functions before its activation (maxout, Goodfellow et al. 2013). All layers but the
    first are normalized, if `norm` is not "none".
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    activation: str
    maxout_pieces: int = 1
    std: float | None = None  # of the initial kernels; None: LeCun's initializer

    config_error = instance_norm_error

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False, label: Array | None = None
    ) -> tuple[Array, Array | None]:  # [B, *shape], [B, K] -> [B], [B, K]
        """Return the logits of examples, and the logits of the K classes or None."""
        x = x.reshape(x.shape[0], -1)
        dtype_fields = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, width in enumerate(self.widths):
            norm = self.norm if i else "none"
            x = apply_dense(
                self,
                x,
                width * self.maxout_pieces,
                train,
                use_bias=norm == "none",
                **normal_kernel_init(self.std),
            )
            x = (
                x
                if self.maxout_pieces == 1
                else first_max(x.reshape(len(x), width, self.maxout_pieces))
            )
            x = ACTIVATIONS[self.activation](apply_norm(norm, x, train, dtype_fields))
        return self.head_logits(x, label, train, **normal_kernel_init(self.std))

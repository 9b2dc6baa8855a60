"""A small classifier of images, whose last hidden layer is the features of metrics."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.conv import Conv
from aigc_jax.models.layers import Network


class Classifier(Network):
    """Convolutions of stride 2 with ReLU, a dense layer of `size` features with ReLU,
    and the logits: 28x28x1 -> 14x14x24 -> 7x7x48 -> 128 -> 10 with channels (24, 48),
    kernel 5, size 128.
    """

    channels: tuple[int, ...]
    kernel: int
    size: int
    classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:  # [B, H, W, C] -> [B, K], [B, size]
        """Return the class logits of images, and their features."""
        dtype_fields = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for channels in self.channels:
            x = nn.relu(Conv(channels, (self.kernel,) * 2, strides=2, **dtype_fields)(x))
        features = nn.relu(nn.Dense(self.size, **dtype_fields)(x.reshape(len(x), -1)))
        return nn.Dense(self.classes, **dtype_fields)(features), features

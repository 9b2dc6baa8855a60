"""The base class of discriminators: logits, class labels and minibatch statistics."""

from typing import Any

import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.layers import Network
from aigc_jax.models.spectral_norm import apply_dense

GROUP = 4  # examples over which `minibatch_stddev` takes standard deviations


def stddev_group_size(batch_size: int) -> int:  # at most GROUP
    """Return the largest group size, at most GROUP, that divides a batch."""
    return next(n for n in range(GROUP, 0, -1) if batch_size % n == 0)


def minibatch_stddev(x: Array) -> Array:  # [B, F] -> [B, 1], one value per group
    """Return the standard deviation of each feature over a group of examples, averaged
    over the features (Karras et al. 2018, section 3; in groups as Karras et al. 2020).

    The value is low where samples are alike. Groups have `stddev_group_size` examples;
    for a group of one, as in `init`, the value carries no information.
    """
    group = stddev_group_size(len(x))
    y = x.reshape(-1, group, x.shape[-1])
    spread = jnp.sqrt(jnp.mean((y - y.mean(1, keepdims=True)) ** 2, axis=1) + 1e-8).mean(-1)
    return jnp.repeat(spread, group)[:, None]


class Discriminator(Network, kw_only=True):
    """Base class of discriminators: ([B, *shape], train, one-hot labels [B, K] or None)
    -> (logits [B], logits of the classes [B, K] or None).

    head   "plain"        w . features + b
           "projection"   plus the inner product of the features and the embedding of
                          the label (Miyato & Koyama 2018, eq. 5)
           "auxiliary"    "plain", and logits of the classes as a second output (Odena
                          et al. 2017, section 3)
    """

    norm: str = "none"
    spectral: bool = False
    minibatch_std: bool = False
    head: str = "plain"
    classes: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def head_logits(
        self, features: Array, label: Any, train: bool, **layer_fields: Any
    ) -> tuple[Array, Array | None]:  # [B, F], [B, K] or None -> [B] (real or not), [B, K] or None
        """Apply the last layers to features.

        Args:
          features: [B, F].
          label: one-hot labels [B, K] for the head "projection"; unused by the others.
          train: as in `spectral_norm.apply_dense`.
          **layer_fields: further fields of the layer of the first logits, such as
            kernel_init.

        Returns:
          The logits [B] of real against generated examples, and the logits [B, K] of
          the classes, or None unless the head is "auxiliary".
        """
        x = (
            jnp.concatenate([features, minibatch_stddev(features)], axis=-1)
            if self.minibatch_std
            else features
        )
        logits = apply_dense(self, x, 1, train, **layer_fields)[:, 0]
        if self.head == "projection":
            logits = logits + jnp.sum(
                apply_dense(self, label, x.shape[-1], train, use_bias=False, name="projection") * x,
                axis=-1,
            )
        classes = (
            apply_dense(self, x, self.classes, train, name="auxiliary")
            if self.head == "auxiliary"
            else None
        )
        return logits, classes

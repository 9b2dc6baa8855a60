"""The base class of discriminators: logits, class labels and minibatch statistics."""

from typing import Any

import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models.layers import Network
from aigc_jax.models.spectral_norm import make_dense

GROUP = 4  # examples over which `minibatch_stddev` takes standard deviations


def group_size(count: int) -> int:
    """Return the largest group size, at most GROUP, that divides a batch of `count`
    examples.
    """
    return next(n for n in range(GROUP, 0, -1) if count % n == 0)


def minibatch_stddev(x: Array) -> Array:  # [B, F] -> [B, 1]
    """Return the standard deviation of each feature over a group of examples, averaged
    over the features (Karras et al. 2018, section 3; in groups as Karras et al. 2020).

    The value is low where samples are alike. Groups have `group_size` examples; for a
    group of one, as in `init`, the value carries no information.
    """
    group = group_size(len(x))
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
        self, x: Array, label: Any, train: bool, **more: Any
    ) -> tuple[Array, Array | None]:  # [B, F], [B, K] -> [B], [B, K]
        """Apply the last layers to features x; return both kinds of logits."""
        x = jnp.concatenate([x, minibatch_stddev(x)], axis=-1) if self.minibatch_std else x
        logits = make_dense(self, x, 1, train, **more)[:, 0]
        if self.head == "projection":
            logits = logits + jnp.sum(
                make_dense(self, label, x.shape[-1], train, use_bias=False, name="projection") * x,
                axis=-1,
            )
        classes = (
            make_dense(self, x, self.classes, train, name="auxiliary")
            if self.head == "auxiliary"
            else None
        )
        return logits, classes

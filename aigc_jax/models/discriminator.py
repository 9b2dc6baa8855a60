"""What discriminators end in: the logit, and what it knows of labels and batch."""

from typing import Any

import jax.numpy as jnp

from aigc_jax.models.layers import Network
from aigc_jax.models.spectral_norm import dense

GROUP = 4  # examples among which deviations are taken


def group_size(count: int) -> int:
    """The most examples, up to GROUP, that divide a batch of `count`: 1 where there is
    no such group.
    """
    return next(n for n in range(GROUP, 0, -1) if count % n == 0)


def deviation(x):  # [B, F] -> [B, 1]
    """The standard deviation of each feature among GROUP examples of the batch (or as
    many as divide it), in the mean over the features: low where samples are alike
    (Karras et al. 2018, section 3; in groups as Karras et al. 2020). Of a group of one,
    as `init` has, it says nothing.
    """
    group = group_size(len(x))
    y = x.reshape(-1, group, x.shape[-1])
    spread = jnp.sqrt(jnp.mean((y - y.mean(1, keepdims=True)) ** 2, axis=1) + 1e-8).mean(-1)
    return jnp.repeat(spread, group)[:, None]


class Discriminator(Network, kw_only=True):
    """What all discriminators have: ([B, *shape], train, one-hot labels [B, K] or None)
    -> (logits [B], logits of the classes [B, K] or None).

    head   "plain"        w . features + b
           "projection"   and the inner product of the features with the label's
                          embedding (Miyato & Koyama 2018, eq. 5)
           "auxiliary"    and logits of the classes beside it (Odena et al. 2017,
                          section 3)
    """

    norm: str = "none"
    spectral: bool = False
    minibatch_std: bool = False
    head: str = "plain"
    classes: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def verdict(self, x, label, train, **more):  # [B, F], [B, K] -> [B], [B, K]
        """The last layers, on the features."""
        x = jnp.concatenate([x, deviation(x)], axis=-1) if self.minibatch_std else x
        logits = dense(self, x, 1, train, **more)[:, 0]
        if self.head == "projection":
            logits = logits + jnp.sum(
                dense(self, label, x.shape[-1], train, use_bias=False, name="projection") * x,
                axis=-1,
            )
        classes = (
            dense(self, x, self.classes, train, name="auxiliary")
            if self.head == "auxiliary"
            else None
        )
        return logits, classes

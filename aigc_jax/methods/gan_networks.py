"""The generator and the discriminator of a GAN as functions of parameters, with labels,
packing and augmentation.

Shapes: B examples, Z noise, K classes. A discriminator of packs of m examples returns
B / m logits.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.rng import example_noise, fold_in
from aigc_jax.core.trees import to_float32
from aigc_jax.data.dataset import Spec
from aigc_jax.methods.augment import AUGMENTATIONS
from aigc_jax.methods.networks import loss_dtype, make_network
from aigc_jax.models import gan_dcgan as networks
from aigc_jax.utils.errors import choose, require

# config.game.condition -> the discriminator's head. All conditional GANs append the
# one-hot label to the generator's noise.
CONDITIONS = {
    "none": "plain",
    # the label as additional channels of the discriminator's input (Mirza & Osindero
    # 2014)
    "concatenation": "plain",
    "projection": "projection",
    "auxiliary": "auxiliary",
}


class GanNetworks:
    """The networks config.model.g and config.model.d.

    `stats` of a network are its variable collections besides the parameters: {} without
    normalization.
    """

    def __init__(self, config: ConfigDict, spec: Spec):
        game = config.game
        Generator, Discriminator = choose(networks.NETWORKS, config.network, "config.network")
        head = choose(CONDITIONS, game.condition, "config.game.condition")
        self.game, self.spec, self.z, self.dtype = game, spec, config.z, loss_dtype(config)
        self.classes = spec.classes if game.condition != "none" else 0
        self.augment = [
            choose(AUGMENTATIONS, name, f"config.game.augment[{i}]")
            for i, name in enumerate(game.augment)
        ]
        require(config.z > 0, f"config.z = {config.z} must be at least 1")
        require(game.pack > 0, f"config.game.pack = {game.pack} must be at least 1")
        require(
            game.condition == "none" or spec.classes,
            f"config.game.condition = {game.condition!r} needs labels, and config.data.name "
            f"= {config.data.name!r} has none",
        )
        require(
            game.condition == "none" or game.pack == 1,
            f"config.game.pack = {game.pack} packs examples of several classes: "
            "config.game.condition must be 'none'",
        )
        require(
            not self.augment or spec.kind == "image",
            f"config.game.augment = {game.augment} is for images",
        )
        depth = spec.shape[-1] * game.pack + (
            self.classes if game.condition == "concatenation" else 0
        )
        self.seen = (*spec.shape[:-1], depth)
        self.g = make_network(Generator, config.model.g, "model.g", config, shape=spec.shape)
        self.d = make_network(
            Discriminator,
            config.model.d,
            "model.d",
            config,
            shape=self.seen,
            head=head,
            classes=self.classes,
        )

    def init(self, key: Array) -> tuple[dict, dict]:
        """Return ({"g": parameters, "d": ...}, {"g": stats, "d": ...})."""
        label = jnp.zeros((1, self.classes)) if self.classes else None
        g = self.g.init(fold_in(key, 0), jnp.zeros((1, self.z + self.classes)))
        d = self.d.init(fold_in(key, 1), jnp.zeros((1, *self.seen)), label=label)
        nets = dict(g=dict(g), d=dict(d))
        return {k: net.pop("params") for k, net in nets.items()}, nets

    def noise(self, key: Array, index: Array) -> Array:  # [B] -> [B, Z]
        """Return the noise of the examples `index`, independent of batching."""
        return example_noise(key, index, (self.z,), self.dtype)

    def onehot(self, label: Array | None) -> Array | None:  # [B] -> [B, K]; None if unconditional
        """Return the labels as inputs of the networks, None if unconditional."""
        return jax.nn.one_hot(label, self.classes, dtype=self.dtype) if self.classes else None

    def generate(
        self,
        params: PyTree,
        stats: PyTree,
        z: Array,
        label: Array | None = None,
        train: bool = False,
    ) -> tuple[Array, PyTree]:  # [B, Z], [B] -> [B, *shape], stats
        """Return generated examples and the new stats; the stats change only if `train`
        is True.
        """
        c = self.onehot(label)
        z = z if c is None else jnp.concatenate([z, c], axis=-1)
        x, stats = self.g.apply({"params": params, **stats}, z, train, mutable=list(stats))
        return to_float32(x), stats

    def discriminate(
        self,
        params: PyTree,
        stats: PyTree,
        x: Array,
        label: Array | None = None,
        train: bool = False,
        key: Array | None = None,
        index: Any = None,
    ) -> tuple[tuple[Array, Array | None], PyTree]:
        """Return the discriminator's logits for examples, and its new stats.

        Args:
          params: the discriminator's parameters.
          stats: its stats.
          x: examples [B, *shape].
          label: classes [B].
          train: whether the stats are updated.
          key: key of the augmentations; None disables augmentation.
          index: numbers [B] of the examples, which key their augmentation.

        Returns:
          ((logits [B / m], logits of the classes [B, K] or None), stats).
        """
        if key is not None:
            for i, change in enumerate(self.augment):
                x = change(x, fold_in(key, i), index)
        c = self.onehot(label)
        if self.game.condition == "concatenation" and c is not None:
            x = jnp.concatenate(
                [
                    x,
                    jnp.broadcast_to(
                        c.reshape(len(c), *(1,) * (x.ndim - 2), -1), (*x.shape[:-1], self.classes)
                    ),
                ],
                axis=-1,
            )
        logits, stats = self.d.apply(
            {"params": params, **stats}, self.packed(x), train, c, mutable=list(stats)
        )
        return to_float32(logits), stats

    def packed(self, x: Array) -> Array:  # [B, ..., C] -> [B / m, ..., m C]
        """Concatenate packs of m examples by channel (Lin et al. 2018, section 3.1)."""
        if self.game.pack == 1:
            return x
        x = x.reshape(-1, self.game.pack, *x.shape[1:])
        return jnp.moveaxis(x, 1, -2).reshape(len(x), *self.seen)

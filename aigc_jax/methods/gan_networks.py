"""The two networks of a game as functions of parameters, and what comes between them:
labels, packing, augmentation.

B examples, Z noise, K classes; a discriminator that sees m examples at once gives B / m
logits.
"""

import jax
import jax.numpy as jnp

from aigc_jax.core.rng import fold, noise
from aigc_jax.core.trees import widen
from aigc_jax.methods.augment import AUGMENTATIONS
from aigc_jax.methods.networks import network, working
from aigc_jax.models import gan_dcgan as networks
from aigc_jax.utils.errors import choose, require

# config.game.condition -> the discriminator's head. The generator's noise is followed
# by the one-hot label in all of them.
CONDITIONS = {
    "none": "plain",
    # the label as further channels of the discriminator's input (Mirza & Osindero 2014)
    "concatenation": "plain",
    "projection": "projection",
    "auxiliary": "auxiliary",
}


class Players:
    """config.model.g and config.model.d. `stats` of each are its collections beside the
    parameters: {} where nothing is normalized.
    """

    def __init__(self, config, spec):
        game = config.game
        Generator, Discriminator = choose(networks.NETWORKS, config.network, "config.network")
        head = choose(CONDITIONS, game.condition, "config.game.condition")
        self.game, self.spec, self.z, self.dtype = game, spec, config.z, working(config)
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
            f"config.game.augment = {game.augment} is for pictures",
        )
        depth = spec.shape[-1] * game.pack + (
            self.classes if game.condition == "concatenation" else 0
        )
        self.seen = (*spec.shape[:-1], depth)
        self.g = network(Generator, config.model.g, "model.g", config, shape=spec.shape)
        self.d = network(
            Discriminator,
            config.model.d,
            "model.d",
            config,
            shape=self.seen,
            head=head,
            classes=self.classes,
        )

    def init(self, key):
        """({"g": parameters, "d": ...}, {"g": stats, "d": ...})"""
        label = jnp.zeros((1, self.classes)) if self.classes else None
        g = self.g.init(fold(key, 0), jnp.zeros((1, self.z + self.classes)))
        d = self.d.init(fold(key, 1), jnp.zeros((1, *self.seen)), label=label)
        nets = dict(g=dict(g), d=dict(d))
        return {k: net.pop("params") for k, net in nets.items()}, nets

    def noise(self, key, index):  # [B] -> [B, Z]
        """Return the noise of the examples `index`, whatever their batch."""
        return noise(key, index, (self.z,), self.dtype)

    def onehot(self, label):  # [B] -> [B, K]; None where nothing is conditioned on labels
        """Return the labels as the networks take them, None if unconditional."""
        return jax.nn.one_hot(label, self.classes, dtype=self.dtype) if self.classes else None

    def generate(
        self, params, stats, z, label=None, train=False
    ):  # [B, Z], [B] -> [B, *shape], stats
        """Return generated examples, and the stats that follow: those given where
        `train` is False.
        """
        c = self.onehot(label)
        z = z if c is None else jnp.concatenate([z, c], axis=-1)
        x, stats = self.g.apply({"params": params, **stats}, z, train, mutable=list(stats))
        return widen(x), stats

    def discriminate(self, params, stats, x, label=None, train=False, key=None, index=None):
        """[B, *shape], [B] -> ((logits [B / m], logits of classes [B, K] or None),
        stats); augmented where a key is given.
        """
        if key is not None:
            for i, change in enumerate(self.augment):
                x = change(x, fold(key, i), index)
        c = self.onehot(label)
        if self.game.condition == "concatenation":
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
        return widen(logits), stats

    def packed(self, x):  # [B, ..., C] -> [B / m, ..., m C]
        """m examples as one (Lin et al. 2018, section 3.1)."""
        if self.game.pack == 1:
            return x
        x = x.reshape(-1, self.game.pack, *x.shape[1:])
        return jnp.moveaxis(x, 1, -2).reshape(len(x), *self.seen)

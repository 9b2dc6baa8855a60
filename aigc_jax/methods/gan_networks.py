"""The generator and the discriminator of a GAN as functions of parameters, with labels,
packing and augmentation.

Shapes: B examples, Z noise, K classes. A discriminator of packs of m examples returns
B / m logits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.rng import fold_in, normal_by_index
from aigc_jax.core.trees import upcast_to_float32
from aigc_jax.data.dataset import Spec
from aigc_jax.methods.augment import AUGMENTATIONS
from aigc_jax.methods.networks import loss_dtype, make_network
from aigc_jax.models import gan_dcgan as networks
from aigc_jax.models.normalization import BatchNorm
from aigc_jax.utils.errors import choose, require

# Size of the noise batch whose statistics normalize the generator in sampling.
STANDING = 128
# config.gan.condition -> the discriminator's head. All conditional GANs append the
# one-hot label to the generator's noise.
CONDITIONS = {
    "none": "plain",
    # the label as additional channels of the discriminator's input (Mirza & Osindero
    # 2014)
    "concatenation": "plain",
    "projection": "projection",
    "auxiliary": "auxiliary",
}


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where the options of the networks are inconsistent or do not
    suit the data.
    """
    gan = config.gan
    choose(CONDITIONS, gan.condition, "config.gan.condition")
    for i, name in enumerate(gan.augment):
        choose(AUGMENTATIONS, name, f"config.gan.augment[{i}]")
    require(config.latent_dim > 0, f"config.latent_dim = {config.latent_dim} must be at least 1")
    require(gan.pack > 0, f"config.gan.pack = {gan.pack} must be at least 1")
    require(
        gan.condition == "none" or spec.classes,
        f"config.gan.condition = {gan.condition!r} needs labels, and config.data.name "
        f"= {config.data.name!r} has none",
    )
    require(
        gan.condition == "none" or gan.pack == 1,
        f"config.gan.pack = {gan.pack} packs examples of several classes: "
        "config.gan.condition must be 'none'",
    )
    require(
        not gan.augment or spec.kind == "image",
        f"config.gan.augment = {gan.augment} is for images",
    )


class Generated(NamedTuple):
    """Examples of one training pass of the generator, for a batch."""

    z: Array  # [B, Z], the noise
    x: Array  # [B, *shape]
    stats: PyTree  # of the generator after the pass


# (the generator's parameters and stats, batch, key) -> Generated
Generate = Callable[[PyTree, PyTree, dict[str, Array], Array], Generated]


@jax.custom_vjp
def _recall(params: PyTree, x: Array, pullback: Callable) -> Array:  # -> x
    """Return x, as a function of `params` whose gradient is that of `pullback`."""
    return x


_recall.defvjp(
    lambda params, x, pullback: (x, pullback),
    lambda pullback, grad: (*pullback(grad), None, None),
)


def share_generated(
    generate: Generate, params: PyTree, stats: PyTree, batch: dict[str, Array], key: Array
) -> Generate:
    """Return `generate` at these arguments as a function that any number of losses may
    call: the forward pass runs once, here, and what it saved serves every gradient.

    Two passes with the same arguments are not always merged by XLA: never within a
    loop, and with batch normalization nowhere (docs/design/log.md).

    Args:
      generate: the pass, whose value at the arguments below the losses need.
      params: the generator's parameters, by which losses may differentiate.
      stats: its stats.
      batch: the part of the batch that the losses will receive.
      key: passed to `generate`.
    """

    def examples(params):
        generated = generate(params, stats, batch, key)
        return generated.x, generated

    x, pullback, generated = jax.vjp(examples, params, has_aux=True)
    return lambda params, *_: generated._replace(x=_recall(params, x, pullback))


class GanNetworks:
    """The networks config.model.g and config.model.d.

    `stats` of a network are its variable collections besides the parameters, such as
    the running moments of batch normalization: {} where it has none.
    """

    def __init__(self, config: ConfigDict, spec: Spec):
        gan = config.gan
        Generator, Discriminator = choose(networks.NETWORKS, config.network, "config.network")
        self.gan, self.spec, self.dtype = gan, spec, loss_dtype(config)
        self.latent_dim = config.latent_dim
        self.classes = spec.classes if gan.condition != "none" else 0
        self.augment: list[Callable] = [AUGMENTATIONS[name] for name in gan.augment]
        depth = spec.shape[-1] * gan.pack + (
            self.classes if gan.condition == "concatenation" else 0
        )
        self.input_shape = (*spec.shape[:-1], depth)
        self.g = make_network(Generator, config.model.g, "model.g", config, shape=spec.shape)
        self.d = make_network(
            Discriminator,
            config.model.d,
            "model.d",
            config,
            shape=self.input_shape,
            head=CONDITIONS[gan.condition],
            classes=self.classes,
        )

    def init(self, key: Array) -> tuple[dict, dict]:  # -> parameters, stats
        """Return ({"g": parameters, "d": ...}, {"g": stats, "d": ...})."""
        label = jnp.zeros((1, self.classes)) if self.classes else None
        g = self.g.init(fold_in(key, 0), jnp.zeros((1, self.latent_dim + self.classes)))
        d = self.d.init(fold_in(key, 1), jnp.zeros((1, *self.input_shape)), label=label)
        nets = dict(g=dict(g), d=dict(d))
        return {k: net.pop("params") for k, net in nets.items()}, nets

    def sample_noise(self, key: Array, index: Array) -> Array:  # [], [B] -> [B, Z]
        """Return noise ~ N(0, 1) of the examples `index`, independent of batching."""
        return normal_by_index(key, index, (self.latent_dim,), self.dtype)

    def one_hot_labels(
        self, label: Array | None
    ) -> Array | None:  # [B] -> [B, K]; None if unconditional
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
        """Return generated examples and the new stats.

        Args:
          params: the generator's parameters.
          stats: its stats.
          z: noise [B, Z].
          label: classes [B]; ignored if the GAN is unconditional, else required.
          train: whether to normalize by the moments of the batch and update the stats.
        """
        c = self.one_hot_labels(label)
        z = z if c is None else jnp.concatenate([z, c], axis=-1)
        x, stats = self.g.apply({"params": params, **stats}, z, train, mutable=list(stats))
        return upcast_to_float32(x), stats

    def generate_batch(
        self, params: PyTree, stats: PyTree, batch: dict[str, Array], key: Array
    ) -> Generated:  # a `Generate`
        """Return the generated examples that a training step compares with a batch."""
        z = self.sample_noise(key, batch["index"])
        return Generated(z, *self.generate(params, stats, z, batch.get("label"), train=True))

    def compute_standing_stats(
        self, params: PyTree, stats: PyTree, key: Array
    ) -> dict[str, PyTree]:  # -> stats
        """Return the generator's statistics on a fixed batch of noise ("standing
        statistics", Brock et al. 2019), for averaged parameters. These were never
        trained: running statistics, averaged or not, belong to other weights.
        """
        stats = dict(stats)
        if "batch_stats" not in stats:
            return stats
        zeros = stats | dict(batch_stats=jax.tree.map(jnp.zeros_like, stats["batch_stats"]))
        index = jnp.arange(STANDING, dtype=jnp.int32)
        z, label = self.sample_noise(key, index), self.cycle_classes(index)
        _, new = self.generate(params, zeros, z, label, train=True)
        # One update of moments that were 0 yields this share of the batch moments.
        moments = jax.tree.map(lambda s: s / (1 - BatchNorm.momentum), new["batch_stats"])
        return stats | dict(batch_stats=moments)

    def cycle_classes(self, index: Array) -> Array:  # [B] -> [B]
        """Return the class index modulo the number of classes."""
        return index % max(self.classes, 1)

    def discriminate(
        self,
        params: PyTree,
        stats: PyTree,
        x: Array,
        label: Array | None = None,
        train: bool = False,
        key: Array | None = None,
        index: Array | None = None,
    ) -> tuple[tuple[Array, Array | None], PyTree]:  # -> ([B / m], [B, K] or None), stats
        """Return the discriminator's logits for examples, and its new stats.

        Args:
          params: the discriminator's parameters.
          stats: its stats.
          x: examples [B, *shape].
          label: classes [B]; ignored if the GAN is unconditional, else required.
          train: whether to normalize by the moments of the batch and update the stats.
          key: key of the augmentations; None disables augmentation.
          index: numbers [B] of the examples, which key their augmentation; unused if
            `key` is None.

        Returns:
          ((logits [B / m], logits of the classes [B, K] or None), stats).
        """
        if key is not None:
            for i, change in enumerate(self.augment):
                x = change(x, fold_in(key, i), index)
        c = self.one_hot_labels(label)
        if self.gan.condition == "concatenation" and c is not None:
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
            {"params": params, **stats}, self.pack_examples(x), train, c, mutable=list(stats)
        )
        return upcast_to_float32(logits), stats

    def pack_examples(self, x: Array) -> Array:  # [B, ..., C] -> [B / m, ..., m C]
        """Concatenate packs of m examples by channel (Lin et al. 2018, section 3.1)."""
        if self.gan.pack == 1:
            return x
        x = x.reshape(-1, self.gan.pack, *x.shape[1:])
        return jnp.moveaxis(x, 1, -2).reshape(len(x), *self.input_shape)

"""The distributions q(z | x), p(z) and p(x | z) of a network of `models/vae.py`, as
functions of parameters, and samplers that visualize the latents.

Shapes: K draws, B batch, Z latents.
"""

import functools
from statistics import NormalDist
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from ml_collections import ConfigDict

from aigc_jax.core.method import Array, GridLabels, PyTree, Sampler, TrainState
from aigc_jax.core.rng import fold_in, normal_by_index
from aigc_jax.core.trees import upcast_to_float32
from aigc_jax.data.dataset import Spec
from aigc_jax.methods.losses import latents as latent_losses
from aigc_jax.methods.networks import (
    ROW,
    describe_interpolation,
    describe_prior,
    interpolate_noise,
    loss_dtype,
    make_network,
    set_latents,
)
from aigc_jax.methods.observation import Observation, eval_binarization_key
from aigc_jax.models import vae as networks
from aigc_jax.utils.errors import choose

LATTICE = 20  # images along each side of the manifold
RECONSTRUCTION = GridLabels(images=("example", "model"))  # above each other
REACH = 3.0  # range of a traversal to either side, in standard deviations


class Draw(NamedTuple):
    """Latents z ~ N(mean, exp(log_var)) of one layer, [K, B, Z]; mean and log_var of
    the lowest layer are [B, Z].
    """

    z: Array
    mean: Array
    log_var: Array


class Model:
    """The distributions q(z | x), p(z) and p(x | z) of config.network.

    The methods share these parameters besides those of `aigc_jax.methods`: x, images
    [B, *shape] as `images_and_labels` returns; c, one-hot labels [B, classes] of a
    conditional network, else None; draws, one `Draw` per layer, from the data up.
    """

    def __init__(self, config: ConfigDict, spec: Spec):
        self.config, self.spec, self.sizes, self.vamp = (
            config,
            spec,
            config.latent_dims,
            config.prior == "vamp",
        )
        self.observation, self.dtype = Observation(config, spec), loss_dtype(config)
        self.net = make_network(
            choose(networks.NETWORKS, config.network, "config.network"),
            config.model,
            "model",
            config,
            shape=spec.shape,
            latent_dims=config.latent_dims,
            scale=self.observation.scale,
            classes=spec.classes if config.conditional else 0,
        )

    def apply_method(self, params: PyTree, method: str, *args: Any) -> Any:
        """Return the result of a method of the network (`models.vae`), in float32 at
        least.

        Args:
          params: all parameters.
          method: name of the method: "encode", "decode" or "raw_pseudo_inputs".
          *args: its arguments.
        """
        return upcast_to_float32(self.net.apply({"params": params["net"]}, *args, method=method))

    def one_hot_labels(
        self, label: Array | None
    ) -> Array | None:  # [B] -> [B, classes]; None if unconditional
        """Return the labels as inputs of the network, None if unconditional."""
        return (
            jax.nn.one_hot(label, self.spec.classes, dtype=self.dtype)
            if self.config.conditional
            else None
        )

    def images_and_labels(
        self, batch: dict[str, Array], binarization_key: Array
    ) -> tuple[Array, Array | None]:  # -> [B, *shape], one-hot [B, classes]
        """Return the images whose likelihood is evaluated, and their labels, None if
        unconditional.
        """
        return self.observation.make_targets(batch, binarization_key), self.one_hot_labels(
            batch["label"]
        ) if self.config.conditional else None

    def sample_posterior(
        self, params: PyTree, x: Array, c: Array | None, key: Array, index: Array, num_draws: int
    ) -> list[Draw]:  # by layer, from the data up: [K, B, Z]
        """Sample K latents of every layer for every example, from the data up.

        Args:
          params: all parameters.
          x: images [B, *shape].
          c: one-hot labels [B, classes] or None.
          key: key of the noise.
          index: numbers [B] of the examples, which key their noise.
          num_draws: K, the number of draws per example.
        """
        below, draws = x, []
        for i, size in enumerate(self.sizes):
            mean, log_var = self.apply_method(params, "encode", i, below, c)
            epsilon = jnp.moveaxis(
                normal_by_index(fold_in(key, i), index, (num_draws, size), self.dtype), 1, 0
            )
            below = mean + jnp.exp(0.5 * log_var) * epsilon
            draws.append(Draw(below, mean, log_var))
        return draws

    def log_p_x_given_z(
        self, params: PyTree, hp: dict[str, Array], x: Array, c: Array | None, z: Array
    ) -> Array:  # [B, *shape], [B, classes], [K, B, Z] -> [K, B]
        """Return log p(x | z) for the lowest latents z [K, B, Z]."""
        return self.observation.log_prob(hp, x, *self.apply_method(params, "decode", 0, z, c))

    def pseudo_inputs(self, params: PyTree) -> Array:  # -> [C, *shape], in the range of x
        """Return the pseudo-inputs of the VampPrior, C = config.model.pseudo."""
        return self.observation.squash_to_target_range(
            self.apply_method(params, "raw_pseudo_inputs")
        )

    def log_prior(self, params: PyTree, z: Array) -> Array:  # [..., Z] -> [...]
        """Return log p(z) of the top layer: a standard normal density, or for a
        VampPrior the mixture of the posteriors of the pseudo-inputs.
        """
        if not self.vamp:
            return latent_losses.log_normal(z, jnp.zeros((), self.dtype), jnp.zeros((), self.dtype))
        return latent_losses.log_normal_mixture(
            z, *self.apply_method(params, "encode", 0, self.pseudo_inputs(params))
        )

    def log_q_minus_log_p(
        self, params: PyTree, c: Array | None, draws: list[Draw]
    ) -> list[Array]:  # -> [K, B] of every layer
        """Return log q - log p of the draws of every layer, a list of [K, B]; the
        expectation of their sum is the KL divergence of all latents.
        """
        above = [self.apply_method(params, "decode", i, d.z, c) for i, d in enumerate(draws) if i]
        log_p = [
            latent_losses.log_normal(d.z, *p) for d, p in zip(draws[:-1], above, strict=True)
        ] + [self.log_prior(params, draws[-1].z)]
        return [latent_losses.log_normal(*d) - p for d, p in zip(draws, log_p, strict=True)]

    def importance_terms(
        self, params: PyTree, hp: dict[str, Array], x: Array, c: Array | None, draws: list[Draw]
    ) -> tuple[Array, Array]:  # -> log p(x | z), log q(z | x) - log p(z): [K, B] each
        """Return the terms of log importance weights, [K, B] each: log p(x | z) and
        log q(z | x) - log p(z), of all layers; log w is their difference.
        """
        return self.log_p_x_given_z(params, hp, x, c, draws[0].z), cast(
            Array, sum(self.log_q_minus_log_p(params, c, draws))
        )

    def elbo_terms(
        self, params: PyTree, hp: dict[str, Array], x: Array, c: Array | None, draws: list[Draw]
    ) -> tuple[Array, Array]:  # -> E log p(x | z), KL(q || p): [B] each
        """Return E log p(x | z) and KL(q || p), [B] each, as means over the K draws.
        The KL of the top layer is in closed form unless the prior is a VampPrior.
        """
        kl = self.log_q_minus_log_p(params, c, draws)
        if not self.vamp:
            kl[-1] = jnp.broadcast_to(
                latent_losses.kl_to_standard_normal(*draws[-1][1:]).sum(-1), kl[-1].shape
            )
        return self.log_p_x_given_z(params, hp, x, c, draws[0].z).mean(0), cast(
            Array, sum(kl)
        ).mean(0)

    def sample_prior(self, params: PyTree, key: Array, index: Array) -> Array:  # [], [B] -> [B, Z]
        """Sample latents of the top layer from the prior, each keyed by its index."""
        z = normal_by_index(fold_in(key, 0), index, self.sizes[-1:], self.dtype)
        if self.vamp:
            chosen = jax.vmap(
                lambda i: jax.random.randint(fold_in(key, 1, i), (), 0, self.net.pseudo)
            )(index)
            mean, log_var = self.apply_method(
                params, "encode", 0, self.pseudo_inputs(params)[chosen]
            )
            z = mean + jnp.exp(0.5 * log_var) * z
        return z

    def decode_latents(
        self, params: PyTree, label: Array | None, key: Array, index: Array, z: Array
    ) -> Array:  # [B], [], [B], [B, Z] of the top layer -> [B, *shape]
        """Return the expected images for latents of the top layer; the layers below are
        sampled.

        Args:
          params: all parameters.
          label: classes [B]; ignored if the network is unconditional.
          key: key of the noise of the layers below.
          index: numbers [B] of the images, which key that noise.
          z: latents [B, Z] of the top layer.
        """
        c = self.one_hot_labels(label)
        for i in range(len(self.sizes) - 1, 0, -1):
            mean, log_var = self.apply_method(params, "decode", i, z, c)
            z = mean + jnp.exp(0.5 * log_var) * normal_by_index(
                fold_in(key, i), index, self.sizes[i - 1 : i], self.dtype
            )
        return self.observation.expected_image(self.apply_method(params, "decode", 0, z, c)[0])

    # -- samplers: (state, key, batch) -> [B, ...]

    def prior_latents(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, Z] of the top layer
        """Return the latents of `prior`, drawn where the batch does not set them."""
        return set_latents(self.sample_prior(state.params, key, batch["index"]), batch)

    def prior(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape]
        """Return expected images for `prior_latents`, of the batch's classes."""
        index, label = batch["index"], batch.get("class")
        z = self.prior_latents(state, key, batch)
        return self.decode_latents(state.params, label, fold_in(key, 2), index, z)

    def reconstruction(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, 2, *shape]: image, reconstruction
        """Return images and their reconstructions from one draw of their latents."""
        x, c = self.images_and_labels(batch, eval_binarization_key(self.config))
        z = self.sample_posterior(state.params, x, c, key, batch["index"], 1)[0].z[0]
        decoded = self.observation.expected_image(
            self.apply_method(state.params, "decode", 0, z, c)[0]
        )
        return jnp.stack([self.observation.to_data_range(x), decoded], axis=1)

    def interpolation(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape]
        """Return rows of images that interpolate spherically between two draws from the
        prior (White 2016, section 2.1).
        """
        z, pair = interpolate_noise(
            functools.partial(self.sample_prior, state.params), key, batch["index"], self.dtype
        )
        return self.decode_latents(
            state.params, pair % max(self.spec.classes, 1), fold_in(key, 2), pair, z
        )

    def traversal(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape]
        """Return a row of images for every latent, in which that latent varies from -3
        to 3 and the others are fixed to one draw from the prior.
        """
        size, index, zero = self.sizes[-1], batch["index"], jnp.zeros_like(batch["index"])
        at = jnp.linspace(-REACH, REACH, ROW, dtype=self.dtype)[index % ROW]
        is_varied = jnp.arange(size) == (index // ROW % size)[:, None]
        z = jnp.where(is_varied, at[:, None], self.sample_prior(state.params, key, zero))
        return self.decode_latents(state.params, zero, fold_in(key, 2), zero, z)

    def manifold(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, *shape]; for two latents
        """Return images of a 20 x 20 grid of the unit square, mapped to latents by the
        inverse normal distribution function (Kingma & Welling 2013, figure 4).
        """
        index, zero = batch["index"] % LATTICE**2, jnp.zeros_like(batch["index"])
        u = (jnp.stack([index % LATTICE, index // LATTICE], -1) + 0.5) / LATTICE
        return self.decode_latents(state.params, zero, key, zero, ndtri(u.astype(self.dtype)))

    def latents(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, 3, Z]: draw, mean, log variance
        """Return one draw of the lowest layer's latents for every image, their mean and
        their log variance, to be saved as .npy.
        """
        x, c = self.images_and_labels(batch, eval_binarization_key(self.config))
        z, mean, log_var = self.sample_posterior(state.params, x, c, key, batch["index"], 1)[0]
        return jnp.stack([z[0], mean, log_var], axis=1)

    def make_samplers(self) -> dict[str, Sampler]:
        """Return the model's samplers by name."""
        classes = self.spec.label_classes() if self.config.conditional else ()
        samplers = dict(
            prior=Sampler(self.prior, latents=self.prior_latents, **describe_prior(classes)),
            reconstruction=Sampler(self.reconstruction, conditioned=True, labels=RECONSTRUCTION),
            latents=Sampler(self.latents, conditioned=True, figure="latents"),
            interpolation=Sampler(self.interpolation, **describe_interpolation(classes)),
            traversal=Sampler(
                self.traversal, grid=(self.sizes[-1], ROW), labels=label_traversal(self.sizes[-1])
            ),
        )
        if self.sizes == (2,):
            samplers["manifold"] = Sampler(
                self.manifold, grid=(LATTICE, LATTICE), labels=label_manifold()
            )
        return samplers


def label_traversal(num_latents: int) -> GridLabels:
    """Return the names of a grid of traversals: the values of the varied latents."""
    values = (f"{-REACH + 2 * REACH * i / (ROW - 1):+.1f}" for i in range(ROW))
    names = tuple(f"z{i}" for i in range(num_latents))
    return GridLabels(tuple(values), "value of the latent", names, "latent")


def label_manifold() -> GridLabels:
    """Return the names of the grid of a manifold: the two latents of each image."""
    quantile = NormalDist().inv_cdf
    values = tuple(f"{quantile((i + 0.5) / LATTICE):+.2f}" for i in range(LATTICE))
    return GridLabels(values, "latent z0", values, "latent z1")

"""A network of `models/vae.py` as distributions: q(z | x), p(z), p(x | z) as functions
of parameters, with the shapes K draws, B batch, Z latents; and what can be seen of the
latents.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from aigc_jax.core.method import Array
from aigc_jax.core.rng import fold, noise
from aigc_jax.core.trees import widen
from aigc_jax.methods.losses import latents as latent_losses
from aigc_jax.methods.networks import ROW, between, network, working
from aigc_jax.methods.observation import held_out, observe
from aigc_jax.models import vae as networks
from aigc_jax.utils.errors import choose

LATTICE = 20  # pictures along each side of the manifold
REACH = 3.0  # standard deviations that a traversal goes to either side


class Draw(NamedTuple):
    """Latents z ~ N(mean, exp(log_var)) of one layer, [K, B, Z]; mean and log_var of
    the lowest layer are [B, Z].
    """

    z: Array
    mean: Array
    log_var: Array


class Model:
    """The distributions q(z | x), p(z) and p(x | z) of config.network."""

    def __init__(self, config, spec):
        self.config, self.spec, self.sizes, self.vamp = (
            config,
            spec,
            config.z,
            config.prior == "vamp",
        )
        self.observation, self.dtype = observe(config, spec), working(config)
        self.net = network(
            choose(networks.NETWORKS, config.network, "config.network"),
            config.model,
            "model",
            config,
            shape=spec.shape,
            z=config.z,
            scale=self.observation.scale,
            classes=spec.classes if config.conditional else 0,
        )

    def call(self, params, what, *args):
        """Return the network's method `what` of `args`, in float32 at least."""
        return widen(self.net.apply({"params": params["net"]}, *args, method=what))

    def onehot(self, label):  # [B] -> [B, classes]; None where nothing is conditioned on labels
        """Return the labels as the network takes them, None if unconditional."""
        return (
            jax.nn.one_hot(label, self.spec.classes, dtype=self.dtype)
            if self.config.conditional
            else None
        )

    def data(self, batch, key):
        """The images whose likelihood is meant, and their labels by `onehot`."""
        return self.observation.target(batch, key), self.onehot(
            batch["label"]
        ) if self.config.conditional else None

    def infer(self, params, x, c, key, index, k) -> list[Draw]:
        """k latents of every layer for every example, from the data up."""
        below, draws = x, []
        for i, size in enumerate(self.sizes):
            mean, log_var = self.call(params, "encode", i, below, c)
            epsilon = jnp.moveaxis(noise(fold(key, i), index, (k, size), self.dtype), 1, 0)
            below = mean + jnp.exp(0.5 * log_var) * epsilon
            draws.append(Draw(below, mean, log_var))
        return draws

    def log_px(self, params, hp, x, c, z):  # -> [K, B]
        """log p(x | z) of the lowest latents."""
        return self.observation.log_prob(hp, x, *self.call(params, "decode", 0, z, c))

    def pseudo_inputs(self, params):  # -> [C, *shape], in the range of the data
        """Return the pseudo-inputs of the VampPrior as data."""
        return self.observation.squash(self.call(params, "pseudo_inputs"))

    def log_prior(self, params, z):  # [..., Z] -> [...]
        """Return log p(z) of the top layer: standard normal, or for a VampPrior the
        mixture of the posteriors of the pseudo-inputs.
        """
        if not self.vamp:
            return latent_losses.log_normal(z, jnp.zeros((), self.dtype), jnp.zeros((), self.dtype))
        return latent_losses.log_mixture(
            z, *self.call(params, "encode", 0, self.pseudo_inputs(params))
        )

    def gaps(self, params, c, draws):
        """log q - log p of every layer's draws, [K, B] each: in the mean KL."""
        above = [self.call(params, "decode", i, d.z, c) for i, d in enumerate(draws) if i]
        log_p = [
            latent_losses.log_normal(d.z, *p) for d, p in zip(draws[:-1], above, strict=True)
        ] + [self.log_prior(params, draws[-1].z)]
        return [latent_losses.log_normal(*d) - p for d, p in zip(draws, log_p, strict=True)]

    def weights(self, params, hp, x, c, draws):
        """log p(x | z) and log q(z | x) - log p(z), [K, B] each: the weights' parts."""
        return self.log_px(params, hp, x, c, draws[0].z), sum(self.gaps(params, c, draws))

    def elbo(self, params, hp, x, c, draws):
        """E log p(x | z) and KL(q || p), [B] each, the latter's top layer in closed
        form where it has one.
        """
        kl = self.gaps(params, c, draws)
        if not self.vamp:
            kl[-1] = jnp.broadcast_to(latent_losses.kl_normal(*draws[-1][1:]).sum(-1), kl[-1].shape)
        return self.log_px(params, hp, x, c, draws[0].z).mean(0), sum(kl).mean(0)

    def top(self, params, key, index):  # -> [B, Z]
        """Draws of the prior."""
        z = noise(fold(key, 0), index, self.sizes[-1:], self.dtype)
        if self.vamp:
            chosen = jax.vmap(
                lambda i: jax.random.randint(fold(key, 1, i), (), 0, self.net.pseudo)
            )(index)
            mean, log_var = self.call(params, "encode", 0, self.pseudo_inputs(params)[chosen])
            z = mean + jnp.exp(0.5 * log_var) * z
        return z

    def down(self, params, label, key, index, z):  # [B], ..., [B, Z] -> [B, *shape]
        """Expected pictures of top latents; what lies between them is drawn. Where
        there are no labels, `label` is not read.
        """
        c = self.onehot(label)
        for i in range(len(self.sizes) - 1, 0, -1):
            mean, log_var = self.call(params, "decode", i, z, c)
            z = mean + jnp.exp(0.5 * log_var) * noise(
                fold(key, i), index, self.sizes[i - 1 : i], self.dtype
            )
        return self.observation.picture(self.call(params, "decode", 0, z, c)[0])

    # -- samplers: (state, key, batch) -> [B, ...]

    def prior(self, state, key, batch):
        """Expected images p(x | z) for z of the prior, of the batch's classes."""
        index, label = batch["index"], batch.get("class")
        z = self.top(state.params, key, index)
        return self.down(state.params, label, fold(key, 2), index, z)

    def reconstruction(self, state, key, batch):  # -> [B, 2, *shape]
        """Pictures and what one draw of their latents makes of them."""
        x, c = self.data(batch, held_out(self.config))
        z = self.infer(state.params, x, c, key, batch["index"], 1)[0].z[0]
        again = self.observation.picture(self.call(state.params, "decode", 0, z, c)[0])
        return jnp.stack([self.observation.show(x), again], axis=1)

    def interpolation(self, state, key, batch):
        """Rows of pictures between two draws of the prior, along the sphere (White
        2016, section 2.1).
        """
        z, pair = between(
            functools.partial(self.top, state.params), key, batch["index"], self.dtype
        )
        return self.down(state.params, pair % max(self.spec.classes, 1), fold(key, 2), pair, z)

    def traversal(self, state, key, batch):
        """For every latent a row of pictures in which it goes from -3 to 3, the others
        as in one draw of the prior.
        """
        size, index, zero = self.sizes[-1], batch["index"], jnp.zeros_like(batch["index"])
        at = jnp.linspace(-REACH, REACH, ROW, dtype=self.dtype)[index % ROW]
        turned = jnp.arange(size) == (index // ROW % size)[:, None]
        z = jnp.where(turned, at[:, None], self.top(state.params, key, zero))
        return self.down(state.params, zero, fold(key, 2), zero, z)

    def manifold(self, state, key, batch):
        """The unit square, 20 x 20, through the inverse of the normal distribution
        function (Kingma & Welling 2013, figure 4).
        """
        index, zero = batch["index"] % LATTICE**2, jnp.zeros_like(batch["index"])
        u = (jnp.stack([index % LATTICE, index // LATTICE], -1) + 0.5) / LATTICE
        return self.down(state.params, zero, key, zero, ndtri(u.astype(self.dtype)))

    def latents(self, state, key, batch):  # -> [B, 3, Z]
        """One draw of the lowest layer's latents of every picture, their mean and their
        log variance: to be saved as .npy.
        """
        x, c = self.data(batch, held_out(self.config))
        z, mean, log_var = self.infer(state.params, x, c, key, batch["index"], 1)[0]
        return jnp.stack([z[0], mean, log_var], axis=1)

    def samplers(self):
        """The samplers that the model has, and rows and columns of their pictures."""
        names = ["prior", "reconstruction", "latents", "interpolation", "traversal"] + [
            "manifold"
        ] * (self.sizes == (2,))
        sheets = dict(
            interpolation=(ROW, ROW), traversal=(self.sizes[-1], ROW), manifold=(LATTICE, LATTICE)
        )
        if self.config.conditional:
            sheets["prior"] = (ROW, self.spec.classes)
        return {name: getattr(self, name) for name in names}, {
            k: v for k, v in sheets.items() if k in [*names, "prior"]
        }

"""VQ-VAE (van den Oord et al. 2017): an autoencoder whose latents are entries e_i of a
codebook, one for every spatial position.

The decoder's input is the code nearest to each output of the encoder; the gradient is
passed to the encoder unchanged ("straight-through estimator"). The codebook has no
gradient: each code moves to the moving average of the outputs assigned to it (ibid.,
appendix A.1), and a rarely used code is reset to a random output of the batch (after
Dhariwal et al. 2020, section 3.3). No prior over codes is learned, so the model cannot
generate new images.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import INIT, fold_in
from aigc_jax.core.trees import to_float32
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import check_keys, loss_dtype, make_network, weighted_means
from aigc_jax.methods.observation import Observation, eval_binarization_key
from aigc_jax.methods.single_network import initial_state, single_network_step
from aigc_jax.models import vqvae
from aigc_jax.utils.errors import choose, require

KEYS = ("codebook_size", "likelihood", "binarize", "optimizer", "schedule.name", "schedule.warmup")


def examples(config: ConfigDict) -> int:
    """Return the number of training examples per step."""
    return config.batch_size


def nearest_code(z: Array, codes: Array) -> Array:  # [..., D], [N, D] -> [...]
    """Return the index of the code with the smallest Euclidean distance (eq. 1)."""
    return jnp.argmin(jnp.sum(codes**2, -1) - 2 * z @ codes.T, axis=-1)


def straight_through(z: Array, code: Array) -> Array:  # 2 x [..., D] -> [..., D]
    """Return the code, with the gradient of z."""
    return z + jax.lax.stop_gradient(code - z)


def perplexity(counts: Any) -> Array:  # [N] -> []
    """Return exp of the entropy of the code frequencies: the effective number of codes,
    N for uniform usage.
    """
    share = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(
        -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0))
    )


def update_codebook(
    codebook: dict[str, Array], z: Array, chosen: Array, decay: Array, restart: Array, key: Array
):
    """Return the codebook {codes [N, D], counts [N], sums [N, D]} after a batch.

    Counts and sums are moving averages of the number of outputs assigned to each code
    and of their sum; a code is sum / count. A code whose count is below `restart` times
    the uniform share M / N is reset to a random output of the batch, with count M / N.

    Args:
      codebook: the codebook before the batch.
      z: the encoder's outputs [M, D].
      chosen: the indices [M] of their codes.
      decay: decay of the moving averages.
      restart: threshold of the count, as a fraction of M / N.
      key: key of the random outputs.
    """
    n = len(codebook["counts"])
    which = jax.nn.one_hot(chosen, n, dtype=z.dtype)
    counts = decay * codebook["counts"] + (1 - decay) * which.sum(0)
    sums = decay * codebook["sums"] + (1 - decay) * which.T @ z
    share = len(z) / n
    dead = counts < restart * share
    drawn = z[jax.random.randint(key, (n,), 0, len(z))]
    counts = jnp.where(dead, share, counts)
    sums = jnp.where(dead[:, None], share * drawn, sums)
    return dict(codes=sums / counts[:, None], counts=counts, sums=sums)


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the autoencoder config.model with config.codebook_size codes."""
    check_keys(config, KEYS)
    choose(likelihoods.LIKELIHOODS, config.likelihood, "config.likelihood")
    require(
        config.codebook_size > 1,
        f"config.codebook_size = {config.codebook_size} must be at least 2",
    )
    return VQVAE(config, spec).as_method(gradients)


class VQVAE:
    """The functions of a `core.method.Method`, as pure methods."""

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        self.config, self.spec, self.dtype = config, spec, loss_dtype(config)
        self.observation = Observation(config, spec)
        self.optimizer = optimizers.make_optimizer(config)
        shapes = dict(shape=spec.shape, scale=self.observation.scale)
        self.net = make_network(vqvae.VQVAE, config.model, "model", config, **shapes)

    def as_method(self, gradients: Callable) -> Method:
        """Return the autoencoder as a `core.method.Method`."""
        step = single_network_step(
            self.make_loss,
            self.optimizer,
            gradients,
            rows=("z", "chosen"),
            update_extra=self.update_extra,
        )
        samplers = dict(reconstruction=Sampler(self.reconstruction, conditioned=True))
        return Method(self.init, step, self.evaluate, self.summarize, samplers)

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        one = jnp.zeros((1, *self.spec.shape), self.dtype)
        params = self.net.init(fold_in(key, INIT), one)["params"]
        # All counts are 0, so that the first batch resets all codes.
        none = jnp.zeros((self.config.codebook_size, self.net.size), self.dtype)
        codebook = dict(codes=none, counts=none[:, 0], sums=none)
        return initial_state(
            key, hp, dict(net=params), self.optimizer, extra=dict(codebook=codebook)
        )

    def call(self, params: PyTree, method: str, *args: Array) -> Any:
        """Return the result of a method of the network, in float32 at least."""
        return to_float32(self.net.apply({"params": params["net"]}, *args, method=method))

    def encode(
        self, params: PyTree, codebook: dict[str, Array], x: Array
    ) -> tuple[Array, Array, Array]:  # -> [B, h, w, D], [B, h, w], [B, h, w, D]
        """Return the encoder's outputs, the indices of their codes, and the codes."""
        z = self.call(params, "encode", x)
        chosen = nearest_code(z, codebook["codes"])
        return z, chosen, codebook["codes"][chosen]

    def decode(self, params: PyTree, codes: Array) -> Array:  # [B, h, w, D] -> [B, *shape]
        """Return the expected images of codes."""
        return self.observation.expected_image(self.call(params, "decode", codes)[0])

    def terms(
        self, params: PyTree, hp: dict[str, Array], x: Array, z: Array, codes: Array
    ) -> tuple[Array, Array]:  # -> [B], [B]
        """Return -log p(x | codes) and |z - codes|^2 (the third term of eq. 3), summed
        over positions.
        """
        decoded = self.call(params, "decode", straight_through(z, codes))
        reconstruction = -self.observation.log_prob(hp, x, *decoded)
        return reconstruction, jnp.sum((z - jax.lax.stop_gradient(codes)) ** 2, axis=(1, 2, 3))

    def make_loss(
        self, state: TrainState, batch: dict[str, Array], key: Array
    ) -> tuple[Callable, dict[str, Array]]:
        """Return the loss (eq. 3 without its second term), and its batch."""

        def loss(params, batch, key):
            x = self.observation.target(batch, fold_in(key, 0))
            z, chosen, codes = self.encode(params, state.extra["codebook"], x)
            reconstruction, distance = self.terms(params, state.hp, x, z, codes)
            value = (reconstruction + state.hp["commitment"] * distance).mean()
            return value, dict(
                loss=value,
                reconstruction=reconstruction.mean(),
                commitment=distance.mean(),
                z=z,
                chosen=chosen,
            )

        return loss, batch

    def update_extra(
        self, state: TrainState, rows: dict[str, Array], key: Array
    ) -> tuple[dict, dict[str, Array]]:
        """Return the codebook after a batch, and the perplexity of its codes."""
        z, chosen, hp = rows["z"].reshape(-1, self.net.size), rows["chosen"].ravel(), state.hp
        codebook = update_codebook(
            state.extra["codebook"], z, chosen, hp["ema_decay"], hp["restart"], fold_in(key, 1)
        )
        used = jax.nn.one_hot(chosen, self.config.codebook_size, dtype=self.dtype).sum(0)
        return dict(codebook=codebook), dict(perplexity=perplexity(used))

    def evaluate(self, state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:
        """Return sums over the batch of the terms of the loss, of the squared error in
        pixels, and of the uses of each code.
        """
        x = self.observation.target(batch, eval_binarization_key(self.config))
        z, chosen, codes = self.encode(state.params, state.extra["codebook"], x)
        reconstruction, commitment = self.terms(state.params, state.hp, x, z, codes)
        error = self.decode(state.params, codes) - self.observation.rescale(x)
        used = jax.nn.one_hot(
            chosen.reshape(len(x), -1), self.config.codebook_size, dtype=self.dtype
        )
        values = dict(
            reconstruction=reconstruction,
            commitment=commitment,
            squared_error=jnp.sum(error**2, axis=(1, 2, 3)),
            used=used.sum(1),
        )
        weight = batch["weight"].astype(self.dtype)
        return {name: jnp.tensordot(weight, v, 1) for name, v in values.items()} | dict(
            weight=jnp.sum(batch["weight"])
        )

    def summarize(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the means over examples, and the perplexity of the codes."""
        used = np.float64(sums["used"])
        means = weighted_means({name: value for name, value in sums.items() if name != "used"})
        return means | dict(perplexity=float(perplexity(used)))

    def reconstruction(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, 2, *shape]
        """Return images and their reconstructions."""
        x = self.observation.target(batch, eval_binarization_key(self.config))
        codes = self.encode(state.params, state.extra["codebook"], x)[2]
        return jnp.stack([self.observation.rescale(x), self.decode(state.params, codes)], axis=1)

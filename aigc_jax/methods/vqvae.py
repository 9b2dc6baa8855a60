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
from aigc_jax.core.method import Array, GridLabels, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import INIT, fold_in
from aigc_jax.core.trees import upcast_to_float32
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import likelihoods
from aigc_jax.methods.networks import loss_dtype, make_network, weighted_means
from aigc_jax.methods.observation import Observation, eval_binarization_key
from aigc_jax.methods.single_network import make_initial_state, make_single_network_step
from aigc_jax.models import vqvae
from aigc_jax.utils.errors import choose, require


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples per step."""
    return config.batch_size


def nearest_code_index(z: Array, codes: Array) -> Array:  # [..., D], [N, D] -> [...]
    """Return the index of the code with the smallest Euclidean distance (eq. 1)."""
    return jnp.argmin(jnp.sum(codes**2, -1) - 2 * z @ codes.T, axis=-1)


def straight_through(z: Array, code: Array) -> Array:  # 2 x [..., D] -> [..., D]
    """Return the code, with the gradient of z."""
    return z + jax.lax.stop_gradient(code - z)


def perplexity(counts: Array | np.ndarray) -> Array:  # [N] -> []
    """Return exp of the entropy of the code frequencies: the effective number of codes,
    N for uniform usage; 1 if all counts are 0.
    """
    share = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(
        -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0))
    )


def update_codebook(
    codebook: dict[str, Array],
    z: Array,
    indices: Array,
    decay: Array,
    restart_threshold: Array,
    key: Array,
) -> dict[str, Array]:  # codes [N, D], counts [N], sums [N, D]; [M, D], [M] -> codebook
    """Return the codebook {codes [N, D], counts [N], sums [N, D]} after a batch.

    Counts and sums are moving averages of the number of outputs assigned to each code
    and of their sum; a code is sum / count. A code whose count is 0, or below
    `restart_threshold` times the uniform share M / N, is reset to a random output of
    the batch, with count M / N.

    Args:
      codebook: the codebook before the batch, of the same entries.
      z: the encoder's outputs [M, D].
      indices: indices [M] of their codes.
      decay: decay [] of the moving averages, in [0, 1).
      restart_threshold: threshold [] of the count, as a fraction of M / N, in [0, 1].
      key: key of the random outputs.
    """
    n = len(codebook["counts"])
    which = jax.nn.one_hot(indices, n, dtype=z.dtype)
    counts = decay * codebook["counts"] + (1 - decay) * which.sum(0)
    sums = decay * codebook["sums"] + (1 - decay) * which.T @ z
    share = len(z) / n
    dead = (counts < restart_threshold * share) | (counts == 0)
    drawn = z[jax.random.randint(key, (n,), 0, len(z))]
    counts = jnp.where(dead, share, counts)
    sums = jnp.where(dead[:, None], share * drawn, sums)
    return dict(codes=sums / counts[:, None], counts=counts, sums=sums)


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the autoencoder config.model with config.codebook_size codes."""
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
        step = make_single_network_step(
            self.make_loss,
            self.optimizer,
            gradients,
            row_metrics=("z", "chosen"),
            update_extra=self.update_extra,
        )
        labels = GridLabels(images=("example", "model"))
        samplers = dict(
            reconstruction=Sampler(self.reconstruction, conditioned=True, labels=labels)
        )
        return Method(self.init, step, self.evaluate, self.summarize, samplers)

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        one = jnp.zeros((1, *self.spec.shape), self.dtype)
        params = self.net.init(fold_in(key, INIT), one)["params"]
        # All counts are 0, so that the first batch resets all codes but code 0, which
        # has its outputs.
        none = jnp.zeros((self.config.codebook_size, self.net.size), self.dtype)
        codebook = dict(codes=none, counts=none[:, 0], sums=none)
        return make_initial_state(
            key, hp, dict(net=params), self.optimizer, extra=dict(codebook=codebook)
        )

    def apply_method(self, params: PyTree, method: str, *args: Array) -> Any:
        """Return the result of a method of the network, "encode" or "decode"
        (`models.vqvae`), in float32 at least.
        """
        return upcast_to_float32(self.net.apply({"params": params["net"]}, *args, method=method))

    def encode(
        self, params: PyTree, codebook: dict[str, Array], x: Array
    ) -> tuple[Array, Array, Array]:  # -> z [B, h, w, D], indices [B, h, w], codes [B, h, w, D]
        """Return the encoder's outputs, the indices of their codes, and the codes.

        Args:
          params: all parameters.
          codebook: as `update_codebook` returns.
          x: images [B, *shape], as `Observation.make_targets` returns.
        """
        z = self.apply_method(params, "encode", x)
        chosen = nearest_code_index(z, codebook["codes"])
        return z, chosen, codebook["codes"][chosen]

    def decode(self, params: PyTree, codes: Array) -> Array:  # [B, h, w, D] -> [B, *shape]
        """Return the expected images of codes."""
        return self.observation.expected_image(self.apply_method(params, "decode", codes)[0])

    def loss_terms(
        self, params: PyTree, hp: dict[str, Array], x: Array, z: Array, codes: Array
    ) -> tuple[Array, Array]:  # -> -log p(x | codes) [B], |z - codes|^2 [B]
        """Return -log p(x | codes) in nats and |z - codes|^2 (the third term of eq. 3
        without its weight), summed over positions.

        Args:
          params: all parameters.
          hp: hyper-parameters, for the likelihood.
          x: images [B, *shape], as `Observation.make_targets` returns.
          z: the encoder's outputs [B, h, w, D], which receive the decoder's gradient.
          codes: their codes [B, h, w, D].
        """
        decoded = self.apply_method(params, "decode", straight_through(z, codes))
        reconstruction = -self.observation.log_prob(hp, x, *decoded)
        return reconstruction, jnp.sum((z - jax.lax.stop_gradient(codes)) ** 2, axis=(1, 2, 3))

    def make_loss(
        self, state: TrainState, batch: dict[str, Array], key: Array
    ) -> tuple[Callable, dict[str, Array]]:  # -> loss(params, batch, key), its batch
        """Return the loss (eq. 3 without its second term), and its batch."""

        def loss(params, batch, key):
            x = self.observation.make_targets(batch, fold_in(key, 0))
            z, chosen, codes = self.encode(params, state.extra["codebook"], x)
            reconstruction, distance = self.loss_terms(params, state.hp, x, z, codes)
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
    ) -> tuple[dict[str, Any], dict[str, Array]]:  # -> state.extra, metrics {name: []}
        """Return the codebook after a batch, and the perplexity of its codes."""
        z, chosen, hp = rows["z"].reshape(-1, self.net.size), rows["chosen"].ravel(), state.hp
        codebook = update_codebook(
            state.extra["codebook"], z, chosen, hp["ema_decay"], hp["restart"], fold_in(key, 1)
        )
        used = jax.nn.one_hot(chosen, self.config.codebook_size, dtype=self.dtype).sum(0)
        return dict(codebook=codebook), dict(perplexity=perplexity(used))

    def evaluate(
        self, state: TrainState, batch: dict[str, Array]
    ) -> dict[str, Array]:  # -> weighted sums {name: [] or [N]}
        """Return sums over the batch of the terms of the loss, of the squared error in
        pixels, and of the uses of each code.
        """
        x = self.observation.make_targets(batch, eval_binarization_key(self.config))
        z, chosen, codes = self.encode(state.params, state.extra["codebook"], x)
        reconstruction, commitment = self.loss_terms(state.params, state.hp, x, z, codes)
        error = self.decode(state.params, codes) - self.observation.to_data_range(x)
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
        used = np.asarray(sums["used"], np.float64)
        means = weighted_means({name: value for name, value in sums.items() if name != "used"})
        return means | dict(perplexity=float(perplexity(used)))

    def reconstruction(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, 2, *shape]: image, reconstruction
        """Return images and their reconstructions."""
        x = self.observation.make_targets(batch, eval_binarization_key(self.config))
        codes = self.encode(state.params, state.extra["codebook"], x)[2]
        return jnp.stack(
            [self.observation.to_data_range(x), self.decode(state.params, codes)], axis=1
        )

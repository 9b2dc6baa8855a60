"""Masked language model (Devlin et al. 2019): an encoder predicts masked tokens from
their context on both sides.

A fraction config.mask_rate of the tokens of each window is selected: 80 % of them are
replaced by the mask token, 10 % by a random token, and 10 % are unchanged (ibid.,
section 3.1). The loss is the cross-entropy of the selected tokens alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import EVALUATE, INIT, fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import batch_part_key, make_network
from aigc_jax.methods.single_network import make_initial_state, make_single_network_step
from aigc_jax.models import transformer
from aigc_jax.utils.errors import require


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples, windows of tokens, per step."""
    return config.batch_size


def mask_tokens(
    key: Array, index: Array, tokens: Array, mask_rate: float, mask_token: int, vocabulary: int
) -> tuple[Array, Array]:  # [], [B], [B, T] -> inputs [B, T], selection [B, T]
    """Select tokens at random and mask them.

    Args:
      key: key of the selection.
      index: numbers [B] of the windows, which key their selection.
      tokens: tokens [B, T].
      mask_rate: probability that a token is selected.
      mask_token: the mask token.
      vocabulary: size of the vocabulary, from which random tokens are drawn.

    Returns:
      The encoder's input [B, T], and the selection [B, T] as 0 and 1.
    """

    def row(i, tokens):
        u, v = jax.random.uniform(fold_in(key, i), (2, len(tokens)))
        other = jax.random.randint(fold_in(key, i, 1), tokens.shape, 0, vocabulary)
        return jnp.where(
            u < mask_rate, jnp.where(v < 0.8, mask_token, jnp.where(v < 0.9, other, tokens)), tokens
        ), (u < mask_rate).astype(jnp.float32)

    return jax.vmap(row)(index, tokens)


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where the config is inconsistent or unsuitable for the data."""
    require(
        spec.kind == "text",
        f"config.data.name = {config.data.name!r} holds no text, and config.method = 'mlm' "
        "reads text",
    )
    require(0 < config.mask_rate < 1, f"config.mask_rate = {config.mask_rate} must be in (0, 1)")
    require(
        spec.mask >= 0,
        f"config.data.tokenizer = {config.data.tokenizer!r} has no mask token, which "
        "config.method = 'mlm' needs",
    )


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the masked language model of the encoder config.model."""
    validate(config, spec)
    return MaskedLanguageModel(config, spec).as_method(gradients)


class MaskedLanguageModel:
    """The functions of a `core.method.Method`, as pure methods."""

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        self.config, self.spec = config, spec
        self.optimizer = optimizers.make_optimizer(config)
        self.net = make_network(
            transformer.Encoder, config.model, "model", config, vocabulary=spec.vocabulary
        )
        require(
            self.net.context >= spec.shape[0],
            f"config.model.context = {self.net.context} positions are less than "
            f"config.data.length = {config.data.length} tokens",
        )

    def as_method(self, gradients: Callable) -> Method:
        """Return the model as a `core.method.Method`."""
        step = make_single_network_step(self.make_loss, self.optimizer, gradients)
        samplers = dict(filled=Sampler(self.filled, conditioned=True))
        return Method(self.init, step, self.evaluate, self.summarize, samplers)

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        one = jnp.zeros((1, self.spec.shape[0]), jnp.int32)
        params = self.net.init(fold_in(key, INIT), one, one + 1)["params"]
        return make_initial_state(key, hp, dict(net=params), self.optimizer)

    def mask_batch(
        self, batch: dict[str, Array], key: Array
    ) -> dict[str, Array]:  # -> {name: [B, T]}
        """Return, [B, T] each, the "tokens", the encoder's "inputs" and the selection
        "chosen" as 0 and 1; `key` is that of the selection.
        """
        tokens, vocabulary = batch["tokens"][:, :-1], self.spec.vocabulary
        inputs, chosen = mask_tokens(
            key, batch["index"], tokens, self.config.mask_rate, self.spec.mask, vocabulary
        )
        return dict(tokens=tokens, inputs=inputs, chosen=chosen)

    def logits(
        self, params: PyTree, inputs: Array, dropout_key: Array | None = None
    ) -> Array:  # [B, T] -> [B, T, V]
        """Return the logits of every token; without a key there is no dropout."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return self.net.apply({"params": params["net"]}, inputs, jnp.ones_like(inputs), rngs=rngs)

    def make_loss(
        self, state: TrainState, batch: dict[str, Array], key: Array
    ) -> tuple[Callable, dict[str, Array]]:  # -> loss(params, batch, key), its batch
        """Return the loss, the mean cross-entropy of the selected tokens, and its batch
        with the selection.
        """
        masked = self.mask_batch(batch, fold_in(key, 0)) | dict(index=batch["index"])
        share = jnp.maximum(masked["chosen"].mean(), 1 / masked["chosen"].size)

        def loss(params, masked, key):
            dropout = batch_part_key(fold_in(key, 1), masked["index"], self.config)
            logits = self.logits(params, masked["inputs"], dropout)
            nats = token_losses.cross_entropy(logits, masked["tokens"], 0.0, self.spec.vocabulary)
            value = jnp.mean(masked["chosen"] * nats) / share
            return value, dict(loss=value)

        return loss, masked

    def evaluate(self, state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:  # -> sums
        """Return sums over the selected tokens; the selection never changes."""
        masked = self.mask_batch(batch, fold_in(state.key, EVALUATE))
        logits, tokens = self.logits(state.params, masked["inputs"]), masked["tokens"]
        nats = token_losses.cross_entropy(logits, tokens, 0.0, self.spec.vocabulary)
        sums = dict(nats=nats, right=jnp.argmax(logits, -1) == tokens, tokens=jnp.ones_like(nats))
        return {
            name: jnp.sum(batch["weight"][:, None] * masked["chosen"] * value)
            for name, value in sums.items()
        }

    def summarize(self, sums: dict[str, np.ndarray]) -> dict[str, float]:
        """Return loss in nats, perplexity and accuracy per selected token."""
        loss = np.float64(sums["nats"]) / np.float64(sums["tokens"])
        return dict(
            loss=float(loss),
            perplexity=float(np.exp(loss)),
            accuracy=float(np.float64(sums["right"]) / np.float64(sums["tokens"])),
        )

    def filled(self, state: TrainState, key: Array, batch: dict[str, Array]) -> Array:  # -> [B, T]
        """Return windows whose selected tokens are replaced by the most likely ones."""
        masked = self.mask_batch(batch, key)
        likeliest = jnp.argmax(self.logits(state.params, masked["inputs"]), -1)
        return jnp.where(masked["chosen"] > 0, likeliest, masked["inputs"]).astype(jnp.int32)

"""Language models: p(text) = prod_t p(token_t | preceding tokens), by a Transformer or
a recurrent network.

Both are functions (tokens [B, T], carry) -> (logits [B, T, V], carry). Trained on
shuffled windows of a text, a network begins each window with an empty carry. With
config.data.order = "stream" the windows of a row are consecutive, and a recurrent
network's carry persists from step to step, without a gradient between steps (truncated
back-propagation through time: Williams & Peng 1990). For pairs concatenated to one text
(config.data.prefix_lm) the loss covers only the answers.

With config.lora.rank a low-rank adaptation is trained while the network's own
parameters are frozen (`lora`).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Language, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import INIT, fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import decoding, lora, optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import batch_part_key, make_network
from aigc_jax.methods.single_network import make_initial_state, make_single_network_step
from aigc_jax.models import recurrent, transformer
from aigc_jax.utils.errors import choose, require

FILLER = -1  # padding after an answer

NETWORKS = {"transformer": transformer.Decoder, "recurrent": recurrent.Recurrent}


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples, windows of tokens, per step."""
    return config.batch_size


def make_language_network(
    config: ConfigDict, spec: Spec
) -> transformer.Decoder | recurrent.Recurrent:
    """Return the network config.model for the data's vocabulary and window length;
    raise a UserError if the data are no text or the windows exceed its positions.
    """
    require(
        spec.kind == "text",
        f"config.data.name = {config.data.name!r} holds no text, and config.method = "
        f"{config.method!r} reads text"
        + "; set config.data.prefix_lm = True for pairs"
        * (spec.kind == "pairs"),
    )
    choice = choose(NETWORKS, config.network, "config.network")
    net = make_network(choice, config.model, "model", config, vocabulary=spec.vocabulary)
    require(
        net.capacity is None or net.capacity >= spec.shape[0],
        f"config.model.context = {net.capacity} positions are less than config.data.length "
        f"= {config.data.length} tokens",
    )
    return net


def shift_to_first_masked(
    tokens: Array, mask: Array, filler: int
) -> Array:  # [B, T], [B, T] -> [B, T]
    """Shift each row to begin with its first masked token, padded with `filler`."""
    position = jnp.argmax(mask > 0, axis=1)[:, None] + jnp.arange(tokens.shape[1])
    packed = jnp.take_along_axis(tokens, jnp.minimum(position, tokens.shape[1] - 1), axis=1)
    return jnp.where(position < tokens.shape[1], packed, filler)


def token_metrics(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the loss in nats per token, the perplexity, and bits per character and per
    byte, which are comparable between vocabularies.

    Args:
      sums: sums over the tokens of the loss mask: "nats", "tokens" (their number),
        "characters" and "bytes" (of their text).
    """
    nats = np.float64(sums["nats"])
    loss = nats / np.float64(sums["tokens"])
    bits = {
        f"bits_per_{unit}": float(nats / math.log(2) / np.float64(sums[f"{unit}s"]))
        for unit in ("character", "byte")
    }
    return dict(loss=float(loss), perplexity=float(np.exp(loss))) | bits


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where the config is inconsistent or unsuitable for the data."""
    lora.validate(config)
    require(
        0 <= config.label_smoothing < 1,
        f"config.label_smoothing = {config.label_smoothing} must be in [0, 1)",
    )
    require(
        config.data.order != "stream" or config.network == "recurrent",
        f"config.data.order = 'stream' is for config.network = 'recurrent', not {config.network!r}",
    )
    require(
        config.loss_chunk >= 0
        and (not config.loss_chunk or spec.shape[0] % config.loss_chunk == 0),
        f"config.loss_chunk = {config.loss_chunk} does not divide config.data.length = "
        f"{spec.shape[0]}; 0 computes all positions at once",
    )
    require(
        not config.loss_chunk or config.network == "transformer",
        f"config.loss_chunk is for config.network = 'transformer', not {config.network!r}",
    )


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the language model config.model on windows of a text."""
    validate(config, spec)
    return LanguageModel(config, spec).as_method(gradients)


class LanguageModel:
    """The functions of a `core.method.Method`, as pure methods."""

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        self.config, self.spec = config, spec
        self.net: Any = make_language_network(config, spec)
        self.optimizer = optimizers.make_optimizer(config)
        self.streams = config.data.order == "stream"
        self.trained = "lora" if config.lora.rank else "net"

    def as_method(self, gradients: Callable) -> Method:
        """Return the model as a `core.method.Method`."""
        step = make_single_network_step(
            self.make_loss,
            self.optimizer,
            gradients,
            self.trained,
            row_metrics=("carry",) * self.streams,
            update_extra=lambda state, rows, key: (rows, {}),
        )
        samplers = dict(
            text=Sampler(self.text),
            answer=Sampler(self.answer, conditioned=True),
            reference=Sampler(self.reference, conditioned=True),
        )
        return Method(
            self.init,
            step,
            self.evaluate,
            token_metrics,
            samplers,
            language=Language(self.net, self.apply),
            compiler=self.net.compiler_options,
        )

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        one = jnp.zeros((1, self.spec.shape[0]), jnp.int32)
        params = dict(net=self.net.init(fold_in(key, INIT), one)["params"])
        if self.trained == "lora":
            params["lora"] = lora.init_adaptation(self.config, fold_in(key, INIT), params["net"])
        extra = dict(carry=self.net.empty_carry(self.config.batch_size, 0)) if self.streams else {}
        return make_initial_state(key, hp, params, self.optimizer, self.trained, extra)

    def apply(
        self,
        params: PyTree,
        tokens: Array,
        carry: PyTree = None,
        dropout_key: Array | None = None,
        method: str | None = None,
    ) -> tuple[Array, PyTree]:  # [B, T] -> [B, T, V], carry
        """Return the logits of tokens that continue a carry, and the next carry.

        Args:
          params: all parameters, with those of the adaptation where present.
          tokens: tokens [B, T].
          carry: the carry before the first of them; None for an empty one.
          dropout_key: key of dropout; None for no dropout.
          method: name of a method of the network to call instead.
        """
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        variables = {"params": lora.merge_adaptation(self.config, params)}
        return self.net.apply(variables, tokens, carry, rngs=rngs, method=method)

    def token_nats(
        self,
        params: PyTree,
        batch: dict[str, Array],
        label_smoothing: float = 0.0,
        dropout_key: Array | None = None,
    ) -> tuple[Array, Array, PyTree]:  # -> nats [B, T], mask [B, T], carry
        """Return the cross-entropy in nats of each token, 0 where masked, the loss
        mask, and the carry.

        Args:
          params: all parameters.
          batch: "tokens" [B, T + 1]; optionally "mask" [B, T] of tokens[:, 1:], all 1
            by default, and "carry", empty by default.
          label_smoothing: label smoothing, in [0, 1).
          dropout_key: key of dropout; None for no dropout.
        """
        tokens, target = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        carry, vocabulary = batch.get("carry"), self.spec.vocabulary
        if chunk := self.config.loss_chunk:
            x, carry = self.apply(params, tokens, carry, dropout_key, "compute_features")
            score = lambda x, target: token_losses.cross_entropy(
                self.logits(params, x), target, label_smoothing, vocabulary
            )
            each = token_losses.score_in_chunks(score, x, target, chunk)
        else:
            logits, carry = self.apply(params, tokens, carry, dropout_key)
            each = token_losses.cross_entropy(logits, target, label_smoothing, vocabulary)
        mask = batch.get("mask", jnp.ones_like(each))
        return each * mask, mask, carry

    def logits(self, params: PyTree, features: Array) -> Array:  # [B, T, D] -> [B, T, V]
        """Return the logits for features, the result of the network's method
        "compute_features".
        """
        variables = {"params": lora.merge_adaptation(self.config, params)}
        return self.net.apply(variables, features, method="logits")

    def make_loss(
        self, state: TrainState, batch: dict[str, Array], key: Array
    ) -> tuple[Callable, dict[str, Array]]:  # -> loss(params, batch, key), its batch
        """Return the loss, the mean cross-entropy of the unmasked tokens, and its
        batch, with the carry if windows are consecutive.
        """
        share = batch["mask"].mean() if "mask" in batch else 1
        if self.streams:
            fresh = batch["fresh"][:, None]
            carry = jax.tree.map(lambda c: jnp.where(fresh, 0, c), state.extra["carry"])
            batch = batch | dict(carry=carry)

        def loss(params, batch, key):
            dropout = batch_part_key(key, batch["index"], self.config)
            each, _, carry = self.token_nats(params, batch, self.config.label_smoothing, dropout)
            value = each.mean() / share
            return value, dict(loss=value) | (dict(carry=carry) if self.streams else {})

        return loss, batch

    def evaluate(self, state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:  # -> sums
        """Return sums over tokens; every window begins with an empty carry."""
        each, counts, _ = self.token_nats(state.params, batch)
        sums = dict(nats=each, tokens=counts, characters=batch["characters"], bytes=batch["bytes"])
        return {name: jnp.sum(batch["weight"][:, None] * value) for name, value in sums.items()}

    def text(self, state: TrainState, key: Array, batch: dict[str, Array]) -> Array:  # -> [B, T]
        """Sample unconditional texts of the length of a training window."""
        return decoding.generate_tokens(
            lambda tokens, carry: self.apply(state.params, tokens, carry),
            self.net,
            key,
            batch["index"],
            self.spec.start,
            self.spec.shape[0],
        )

    def completion_mask(self, batch: dict[str, Array]) -> Array:  # -> [B, T] of tokens[:, 1:]
        """Return the mask of the tokens to generate: the answers of concatenated pairs,
        or the second half of any other window.
        """
        half = jnp.arange(self.spec.shape[0]) >= self.spec.shape[0] // 2
        return (
            batch["mask"]
            if "mask" in batch
            else jnp.broadcast_to(half, batch["tokens"][:, 1:].shape)
        )

    def answer(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, T], padded with -1
        """Return greedy completions of prompts, the tokens before those of
        `completion_mask`, as `shift_to_first_masked` returns; the key is not used.
        """
        apply = lambda tokens, carry: self.apply(state.params, tokens, carry)
        mask = self.completion_mask(batch)
        written = decoding.complete_masked(apply, self.net, batch["tokens"], mask)
        return shift_to_first_masked(written, mask, FILLER)

    def reference(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, T], padded with -1
        """Return the answers of the data, in the format of `answer`."""
        return shift_to_first_masked(batch["tokens"][:, 1:], self.completion_mask(batch), FILLER)

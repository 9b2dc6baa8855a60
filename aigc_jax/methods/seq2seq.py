"""Sequence to sequence learning with an encoder-decoder (Vaswani et al. 2017):
p(target | source) = prod_t p(target_t | preceding target tokens, source).
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Array, Language, Method, PyTree, Sampler, TrainState
from aigc_jax.core.rng import INIT, fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.methods import beam_search, optimizers
from aigc_jax.methods.lm import token_metrics
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import batch_part_key, make_network
from aigc_jax.methods.single_network import make_initial_state, make_single_network_step
from aigc_jax.models import transformer
from aigc_jax.utils.errors import require


def examples_per_step(config: ConfigDict) -> int:
    """Return the number of training examples, pairs of texts, per step."""
    return config.batch_size


def validate(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError where the config is inconsistent or unsuitable for the data."""
    require(
        not config.data.prefix_lm,
        "config.data.prefix_lm must be False for config.method = 'seq2seq', which reads the two "
        "texts of a pair separately",
    )
    require(
        spec.kind == "pairs",
        f"config.data.name = {config.data.name!r} holds no pairs of texts, and "
        "config.method = 'seq2seq' reads pairs",
    )
    require(
        0 <= config.label_smoothing < 1,
        f"config.label_smoothing = {config.label_smoothing} must be in [0, 1)",
    )
    require(config.num_beams > 0, f"config.num_beams = {config.num_beams} must be at least 1")


def make(config: ConfigDict, spec: Spec, gradients: Callable = mean_gradients) -> Method:
    """Return the Transformer config.model for pairs of texts with a shared vocabulary.
    The token spec.start precedes a target, and ends it.
    """
    validate(config, spec)
    return SequenceToSequence(config, spec).as_method(gradients)


class SequenceToSequence:
    """The functions of a `core.method.Method`, as pure methods."""

    def __init__(self, config: ConfigDict, spec: Spec) -> None:
        self.config, self.spec = config, spec
        self.optimizer = optimizers.make_optimizer(config)
        self.net = make_network(
            transformer.EncoderDecoder, config.model, "model", config, vocabulary=spec.vocabulary
        )
        require(
            self.net.context >= max(spec.shape),
            f"config.model.context = {self.net.context} positions are less than the "
            f"{max(spec.shape)} tokens of the longest pair",
        )

    def as_method(self, gradients: Callable) -> Method:
        """Return the model as a `core.method.Method`."""
        samplers: dict[str, Callable] = dict(
            answer=partial(self.answer, self.config.num_beams),
            greedy=partial(self.answer, 1),
            reference=self.reference,
        )
        return Method(
            self.init,
            make_single_network_step(self.make_loss, self.optimizer, gradients),
            self.evaluate,
            token_metrics,
            {name: Sampler(draw, conditioned=True) for name, draw in samplers.items()},
            language=Language(self.net, self.apply, self.make_decoder_carry),
        )

    def init(self, key: Array, hp: dict[str, Array]) -> TrainState:
        """Return the state before the first step."""
        one = jnp.zeros((1, 2), jnp.int32)
        params = self.net.init(fold_in(key, INIT), one, one + 1, one)["params"]
        return make_initial_state(key, hp, dict(net=params), self.optimizer)

    def token_nats(
        self,
        params: PyTree,
        batch: dict[str, Array],
        label_smoothing: float = 0.0,
        dropout_key: Array | None = None,
    ) -> Array:  # -> nats [B, T]
        """Return the cross-entropy in nats of every token, 0 after the end of the
        target.

        Args:
          params: all parameters.
          batch: "source" [B, S] and its "source_mask", "tokens" [B, T + 1] from the
            start token on, and "mask" [B, T] of the tokens after it, 1 up to and with
            the end token.
          label_smoothing: label smoothing, in [0, 1).
          dropout_key: key of dropout; None for no dropout.
        """
        logits = self.net.apply(
            {"params": params["net"]},
            batch["source"],
            batch["source_mask"],
            batch["tokens"][:, :-1],
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        return batch["mask"] * token_losses.cross_entropy(
            logits, batch["tokens"][:, 1:], label_smoothing, self.spec.vocabulary
        )

    def make_loss(
        self, state: TrainState, batch: dict[str, Array], key: Array
    ) -> tuple[Callable, dict[str, Array]]:  # -> loss(params, batch, key), its batch
        """Return the loss, the mean cross-entropy of the unmasked tokens, and its
        batch.
        """
        share = batch["mask"].mean()

        def loss(params, batch, key):
            dropout = batch_part_key(key, batch["index"], self.config)
            value = (
                self.token_nats(params, batch, self.config.label_smoothing, dropout).mean() / share
            )
            return value, dict(loss=value)

        return loss, batch

    def evaluate(self, state: TrainState, batch: dict[str, Array]) -> dict[str, Array]:  # -> sums
        """Return sums over the tokens of the targets, for `lm.token_metrics`."""
        sums = dict(
            nats=self.token_nats(state.params, batch),
            tokens=batch["mask"],
            characters=batch["characters"],
            bytes=batch["bytes"],
        )
        return {name: jnp.sum(batch["weight"][:, None] * value) for name, value in sums.items()}

    def apply(
        self, params: PyTree, tokens: Array, carry: PyTree
    ) -> tuple[Array, PyTree]:  # [B, T], carry -> [B, T, V], carry
        """Return the logits of target tokens that continue a carry, that of
        `make_decoder_carry` first, and the next carry.
        """
        return self.net.apply({"params": params["net"]}, tokens, carry, method="decode")

    def make_decoder_carry(
        self, params: PyTree, source: Array, source_mask: Array, max_tokens: int
    ) -> PyTree:  # [B, S], [B, S] -> carry
        """Return the initial carry of the decoder for encoded sources.

        Args:
          params: all parameters.
          source: tokens [B, S] of the sources.
          source_mask: mask [B, S], 0 at padding, else 1.
          max_tokens: number of target tokens that the carry has room for.
        """
        memory = self.net.apply({"params": params["net"]}, source, source_mask, method="encode")
        return memory | self.net.empty_carry(len(source), max_tokens)

    def answer(
        self, num_beams: int, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, T], padded with the end token
        """Return the targets found by beam search with this number of beams, padded
        with the end token; one beam is greedy decoding. The key is not used.
        """
        start, room = self.spec.start, self.spec.shape[1]
        first = jnp.full(len(batch["index"]), start, jnp.int32)
        carry = self.make_decoder_carry(state.params, batch["source"], batch["source_mask"], room)
        apply = lambda tokens, carry: self.apply(state.params, tokens, carry)
        return beam_search.search(
            apply,
            self.net,
            carry,
            first,
            num_beams,
            room,
            end_token=start,
            length_penalty=self.config.length_penalty,
        )[0]

    def reference(
        self, state: TrainState, key: Array, batch: dict[str, Array]
    ) -> Array:  # -> [B, T]
        """Return the targets of the data."""
        return batch["tokens"][:, 1:]

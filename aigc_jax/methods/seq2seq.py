"""Sequence to sequence (Vaswani et al. 2017): p(target | source) = prod_t p(target_t |
target before it, source), by an encoder-decoder.
"""

import jax.numpy as jnp

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Language, Method, TrainState
from aigc_jax.core.rng import INIT, fold
from aigc_jax.methods import beam_search, optimizers
from aigc_jax.methods.lm import per_token
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import apart, check_keys, network
from aigc_jax.models import transformer
from aigc_jax.utils.errors import require

KEYS = ("smoothing", "beams", "length_penalty", "optimizer", "schedule.name", "schedule.warmup")


def examples(config) -> int:
    """Training examples a step: pairs."""
    return config.batch_size


def make(config, spec, gradients=mean_gradients) -> Method:
    """The Transformer config.model on pairs of texts with one vocabulary. A target
    begins after, and ends with, the token spec.start.
    """
    check_keys(config, KEYS)
    require(
        not config.data.joined,
        "config.data.joined = True makes one text of each pair, and config.method = "
        "'seq2seq' reads the two apart: "
        "it must be False",
    )
    require(
        spec.kind == "pairs",
        f"config.data.name = {config.data.name!r} holds no pairs of texts, and "
        "config.method = 'seq2seq' reads pairs",
    )
    require(0 <= config.smoothing < 1, f"config.smoothing = {config.smoothing} must lie in [0, 1)")
    require(config.beams > 0, f"config.beams = {config.beams} must be at least 1")
    net = network(
        transformer.EncoderDecoder, config.model, "model", config, vocabulary=spec.vocabulary
    )
    room, optimizer = spec.shape[1], optimizers.make(config)
    require(
        net.context >= max(spec.shape),
        f"config.model.context = {net.context} positions are less than the "
        f"{max(spec.shape)} of the longest pair",
    )

    def errors(params, batch, smoothing=0.0, key=None):  # -> [B, T], 0 where the target has ended
        logits = net.apply(
            {"params": params["net"]},
            batch["source"],
            batch["source_mask"],
            batch["tokens"][:, :-1],
            rngs=None if key is None else {"dropout": key},
        )
        return batch["mask"] * token_losses.cross_entropy(
            logits, batch["tokens"][:, 1:], smoothing, spec.vocabulary
        )

    def init(key, hp):
        one = jnp.zeros((1, 2), jnp.int32)
        params = net.init(fold(key, INIT), one, one + 1, one)["params"]
        return TrainState(
            jnp.int32(0),
            key,
            dict(net=params),
            dict(net=optimizer(hp["lr"], hp, 0).init(params)),
            {},
            hp,
        )

    def step(state, batch):
        hp, share = state.hp, batch["mask"].mean()  # of the tokens that count

        def loss(params, batch, key):
            value = (
                errors(params, batch, config.smoothing, apart(key, batch["index"], config)).mean()
                / share
            )
            return value, dict(loss=value)

        grads, metrics = gradients(loss, state.params, batch, fold(state.key, state.step))
        params, opt = optimizers.apply(
            optimizer(hp["lr"], hp, state.step), grads["net"], state.opt["net"], state.params["net"]
        )
        return state.replace(
            step=state.step + 1, params=dict(net=params), opt=dict(net=opt)
        ), metrics

    def evaluate(state, batch):
        sums = dict(
            nats=errors(state.params, batch),
            tokens=batch["mask"],
            characters=batch["characters"],
            bytes=batch["bytes"],
        )
        return {name: jnp.sum(batch["weight"][:, None] * value) for name, value in sums.items()}

    def apply(params, tokens, carry):
        return net.apply({"params": params["net"]}, tokens, carry, method="decode")

    def begin(params, source, mask, length):
        """The carry of a decoder that has written nothing yet."""
        return net.apply({"params": params["net"]}, source, mask, method="encode") | net.carry(
            len(source), length
        )

    def answer(beams):
        def draw(state, key, batch):  # -> [B, T]
            first = jnp.full(len(batch["index"]), spec.start, jnp.int32)
            carry = begin(state.params, batch["source"], batch["source_mask"], room)
            on = lambda tokens, carry: apply(state.params, tokens, carry)
            return beam_search.search(
                on, net, carry, first, beams, room, spec.start, config.length_penalty
            )[0]

        return draw

    language = Language(net, apply, begin)
    samplers = dict(
        answer=answer(config.beams),
        greedy=answer(1),
        reference=lambda state, key, batch: batch["tokens"][:, 1:],
    )
    return Method(init, step, evaluate, per_token, samplers, language=language)

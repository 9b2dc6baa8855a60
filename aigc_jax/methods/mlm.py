"""Masked language model (Devlin et al. 2019): an encoder guesses tokens that were
hidden from it, from both sides.

Of each window a share config.masked of the tokens is chosen: 80 % of them are replaced
by the mask, 10 % by a random token, 10 % stay (ibid., section 3.1). The loss is that of
the chosen ones alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Method, TrainState
from aigc_jax.core.rng import EVALUATE, INIT, fold
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import apart, check_keys, network
from aigc_jax.models import transformer
from aigc_jax.utils.errors import require

KEYS = ("masked", "optimizer", "schedule.name", "schedule.warmup")


def examples(config) -> int:
    """Training examples a step: windows of config.data.length tokens."""
    return config.batch_size


def hide(key, index, tokens, share, mask, size):  # [], [B], [B, T] -> [B, T], [B, T]
    """What the encoder sees, and which tokens it has to guess (as 0 and 1)."""

    def row(i, tokens):
        u, v = jax.random.uniform(fold(key, i), (2, len(tokens)))
        other = jax.random.randint(fold(key, i, 1), tokens.shape, 0, size)
        return jnp.where(
            u < share, jnp.where(v < 0.8, mask, jnp.where(v < 0.9, other, tokens)), tokens
        ), (u < share).astype(jnp.float32)

    return jax.vmap(row)(index, tokens)


def make(config, spec, gradients=mean_gradients) -> Method:
    """The encoder config.model on windows of a text, with a token that hides others."""
    check_keys(config, KEYS)
    require(
        spec.kind == "text",
        f"config.data.name = {config.data.name!r} holds no text, and config.method = 'mlm' "
        "reads text",
    )
    require(0 < config.masked < 1, f"config.masked = {config.masked} must lie in (0, 1)")
    net = network(transformer.Encoder, config.model, "model", config, vocabulary=spec.vocabulary)
    require(
        net.context >= spec.shape[0],
        f"config.model.context = {net.context} positions are less than config.data.length = "
        f"{config.data.length} tokens",
    )
    require(
        spec.mask >= 0,
        f"config.data.tokenizer = {config.data.tokenizer!r}: the tokenizer has no token "
        "that hides others, which "
        "config.method = 'mlm' needs",
    )
    optimizer, mask = optimizers.make(config), spec.mask

    def hidden(batch, key):
        """The tokens [B, T], what is seen of them, and which of them count."""
        tokens = batch["tokens"][:, :-1]
        seen, chosen = hide(key, batch["index"], tokens, config.masked, mask, spec.vocabulary)
        return dict(tokens=tokens, seen=seen, chosen=chosen)

    def guess(params, seen, dropout=None):  # [B, T] -> [B, T, V]
        rngs = None if dropout is None else {"dropout": dropout}
        return net.apply({"params": params["net"]}, seen, jnp.ones_like(seen), rngs=rngs)

    def init(key, hp):
        one = jnp.zeros((1, spec.shape[0]), jnp.int32)
        params = net.init(fold(key, INIT), one, one + 1)["params"]
        return TrainState(
            jnp.int32(0),
            key,
            dict(net=params),
            dict(net=optimizer(hp["lr"], hp, 0).init(params)),
            {},
            hp,
        )

    def step(state, batch):
        hp, key = state.hp, fold(state.key, state.step)
        given = hidden(batch, fold(key, 0)) | dict(index=batch["index"])
        share = jnp.maximum(given["chosen"].mean(), 1 / given["chosen"].size)

        def loss(params, given, key):
            logits = guess(params, given["seen"], apart(fold(key, 1), given["index"], config))
            value = (
                jnp.mean(
                    given["chosen"]
                    * token_losses.cross_entropy(logits, given["tokens"], 0.0, spec.vocabulary)
                )
                / share
            )
            return value, dict(loss=value)

        grads, metrics = gradients(loss, state.params, given, key)
        params, opt = optimizers.apply(
            optimizer(hp["lr"], hp, state.step), grads["net"], state.opt["net"], state.params["net"]
        )
        return state.replace(
            step=state.step + 1, params=dict(net=params), opt=dict(net=opt)
        ), metrics

    def evaluate(state, batch):
        """The same tokens hidden at every evaluation."""
        given = hidden(batch, fold(state.key, EVALUATE))
        logits, tokens = guess(state.params, given["seen"]), given["tokens"]
        nats = token_losses.cross_entropy(logits, tokens, 0.0, spec.vocabulary)
        sums = dict(nats=nats, right=jnp.argmax(logits, -1) == tokens, tokens=jnp.ones_like(nats))
        return {
            name: jnp.sum(batch["weight"][:, None] * given["chosen"] * value)
            for name, value in sums.items()
        }

    def summarize(sums):
        loss = np.float64(sums["nats"]) / np.float64(sums["tokens"])
        return dict(
            loss=float(loss),
            perplexity=float(np.exp(loss)),
            accuracy=float(np.float64(sums["right"]) / np.float64(sums["tokens"])),
        )

    def filled(state, key, batch):  # -> [B, T]
        """Windows whose hidden tokens are the likeliest."""
        given = hidden(batch, key)
        return jnp.where(
            given["chosen"] > 0, jnp.argmax(guess(state.params, given["seen"]), -1), given["seen"]
        ).astype(jnp.int32)

    return Method(init, step, evaluate, summarize, dict(filled=filled))

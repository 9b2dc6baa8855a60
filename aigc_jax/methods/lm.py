"""Language models: p(text) = prod_t p(token_t | tokens before it), by a Transformer or
a recurrent network alike.

Both are (tokens [B, T], carry) -> (logits [B, T, V], carry). Trained on windows of the
text in any order, a network begins each with an empty carry. With config.data.order =
"stream" the windows of a row follow one another, and a recurrent network's carry goes
on from step to step without a gradient between them (truncated back-propagation through
time: Williams & Peng 1990). Of pairs joined to one text (config.data.joined) the
answers alone are learned.

With config.lora.rank a low-rank adaptation of the parameters is trained, and they stay
as they are (`lora`).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.gradients import mean_gradients
from aigc_jax.core.method import Language, Method, TrainState
from aigc_jax.core.rng import INIT, fold
from aigc_jax.methods import decoding, lora, optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import apart, check_keys, network
from aigc_jax.models import recurrent, transformer
from aigc_jax.utils.errors import choose, require

KEYS = ("network", "smoothing", "optimizer", "schedule.name", "schedule.warmup")

NETWORKS = {"transformer": transformer.Decoder, "recurrent": recurrent.Recurrent}


def examples(config) -> int:
    """Training examples a step: windows of config.data.length tokens."""
    return config.batch_size


def build(config, spec):
    """The network config.model for a vocabulary and windows as the data have them."""
    require(
        spec.kind == "text",
        f"config.data.name = {config.data.name!r} holds no text, and config.method = "
        f"{config.method!r} reads text"
        + " (of pairs: config.data.joined = True)"
        * (spec.kind == "pairs"),
    )
    choice = choose(NETWORKS, config.network, "config.network")
    net = network(choice, config.model, "model", config, vocabulary=spec.vocabulary)
    require(
        net.capacity is None or net.capacity >= spec.shape[0],
        f"config.model.context = {net.capacity} positions are less than config.data.length "
        f"= {config.data.length} tokens",
    )
    return net


def per_token(sums) -> dict[str, float]:
    """Loss in nats a token, its exponential, and bits a character and a byte, which
    vocabularies may differ in.
    """
    nats = np.float64(sums["nats"])
    loss = nats / np.float64(sums["tokens"])
    bits = {
        f"bits_per_{unit}": float(nats / math.log(2) / np.float64(sums[f"{unit}s"]))
        for unit in ("character", "byte")
    }
    return dict(loss=float(loss), perplexity=float(np.exp(loss))) | bits


def make(config, spec, gradients=mean_gradients) -> Method:
    """Next-token prediction by config.model on windows of the text (see KEYS)."""
    check_keys(config, KEYS)
    lora.check(config)
    require(0 <= config.smoothing < 1, f"config.smoothing = {config.smoothing} must lie in [0, 1)")
    net, optimizer = build(config, spec), optimizers.make(config)
    streams = config.data.order == "stream"
    require(
        not streams or config.network == "recurrent",
        "config.data.order = 'stream' is for config.network = 'recurrent', whose carry goes on",
    )

    require(
        config.loss_chunk >= 0
        and (not config.loss_chunk or spec.shape[0] % config.loss_chunk == 0),
        f"config.loss_chunk = {config.loss_chunk} does not divide config.data.length = "
        f"{spec.shape[0]}; 0 takes all positions at once",
    )
    require(
        not config.loss_chunk or config.network == "transformer",
        f"config.loss_chunk is for config.network = 'transformer', not {config.network!r}",
    )
    trained = "lora" if config.lora.rank else "net"

    def apply(params, tokens, carry=None, key=None, method=None):
        rngs = None if key is None else {"dropout": key}
        return net.apply(
            {"params": lora.merged(config, params)}, tokens, carry, rngs=rngs, method=method
        )

    # Returns of each token [B, T] its loss, and whether it counts, and the carry.
    def errors(params, batch, smoothing=0.0, carry=None, key=None):
        tokens, target = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        if chunk := config.loss_chunk:
            x, carry = apply(params, tokens, carry, key, "features")
            score = lambda x, target: token_losses.cross_entropy(
                logits_of(params, x), target, smoothing, spec.vocabulary
            )
            each = token_losses.in_chunks(score, x, target, chunk)
        else:
            logits, carry = apply(params, tokens, carry, key)
            each = token_losses.cross_entropy(logits, target, smoothing, spec.vocabulary)
        mask = batch.get("mask", jnp.ones_like(each))
        return each * mask, mask, carry

    def logits_of(params, x):
        return net.apply({"params": lora.merged(config, params)}, x, method="logits")

    def init(key, hp):
        params = net.init(fold(key, INIT), jnp.zeros((1, spec.shape[0]), jnp.int32))["params"]
        params = dict(net=params) | (
            {} if trained == "net" else dict(lora=lora.init(config, fold(key, INIT), params))
        )
        extra = dict(carry=net.carry(config.batch_size, 0)) if streams else {}
        return TrainState(
            jnp.int32(0),
            key,
            params,
            {trained: optimizer(hp["lr"], hp, 0).init(params[trained])},
            extra,
            hp,
        )

    def step(state, batch):
        hp = state.hp
        share = batch["mask"].mean() if "mask" in batch else 1  # of the tokens that count
        if streams:
            batch = batch | dict(
                carry=jax.tree.map(
                    lambda c: jnp.where(batch["fresh"][:, None], 0, c), state.extra["carry"]
                )
            )

        def loss(part, batch, key):
            dropout = apart(key, batch["index"], config)
            each, _, carry = errors(
                state.params | {trained: part}, batch, config.smoothing, batch.get("carry"), dropout
            )
            value = each.mean() / share
            return value, dict(loss=value) | (dict(carry=carry) if streams else {})

        grads, metrics = gradients(
            loss,
            state.params[trained],
            batch,
            fold(state.key, state.step),
            rows=("carry",) * streams,
        )
        extra = dict(carry=metrics.pop("carry")) if streams else {}
        part, opt = optimizers.apply(
            optimizer(hp["lr"], hp, state.step), grads, state.opt[trained], state.params[trained]
        )
        return state.replace(
            step=state.step + 1,
            params=state.params | {trained: part},
            opt={trained: opt},
            extra=extra,
        ), metrics

    def evaluate(state, batch):
        """Each window by itself, from an empty carry."""
        each, counts, _ = errors(state.params, batch)
        sums = dict(nats=each, tokens=counts, characters=batch["characters"], bytes=batch["bytes"])
        return {name: jnp.sum(batch["weight"][:, None] * value) for name, value in sums.items()}

    def text(state, key, batch):  # -> [B, T]
        """As many tokens as a training window has, from the beginning of a text on."""
        return decoding.free(
            lambda tokens, carry: apply(state.params, tokens, carry),
            net,
            key,
            batch["index"],
            spec.start,
            spec.shape[0],
        )

    def asked(batch):  # -> [B, T]: the answers of joined pairs, the second half of any other window
        half = jnp.arange(spec.shape[0]) >= spec.shape[0] // 2
        return (
            batch["mask"]
            if "mask" in batch
            else jnp.broadcast_to(half, batch["tokens"][:, 1:].shape)
        )

    filler = -1  # no token: it is no text

    def answer(state, key, batch):  # -> [B, T]
        on = lambda tokens, carry: apply(state.params, tokens, carry)
        return decoding.to_front(
            decoding.answer(on, net, batch["tokens"], asked(batch)), asked(batch), filler
        )

    def reference(state, key, batch):  # -> [B, T]
        return decoding.to_front(batch["tokens"][:, 1:], asked(batch), filler)

    samplers = dict(text=text, answer=answer, reference=reference)
    return Method(
        init,
        step,
        evaluate,
        per_token,
        samplers,
        language=Language(net, apply),
        compiler=net.compiler,
    )

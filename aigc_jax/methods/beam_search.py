"""Beam search with a sequence network, inside a program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from aigc_jax.methods.decoding import next_logits


def search(
    apply: Callable, net, carry, first, width: int, length: int, end: int, penalty: float = 0.0
):  # [B] -> [B, length], [B]
    """The best texts that beam search of `width` finds after the tokens `first`, filled
    up with `end`, and their scores: log p / ((5 + n) / 6)^penalty of n tokens, the end
    included (Wu et al. 2016, eq. 14). At most `length` tokens.

    Of the 2 W best continuations of the W live texts, those among the first W that end
    are finished; the W best of the others live on. The search for a row ends when W
    texts are finished; those that are cut off at `length` count too.
    """
    which = jnp.arange(len(first))[:, None]
    normalize = lambda score, n: score / ((5 + n) / 6) ** penalty

    def going(state):
        return (state["n"] < length) & ~jnp.all(state["finished"] >= width)

    def body(state):
        n, open_ = state["n"], (state["finished"] < width)[:, None]
        logits, carry = apply(state["last"].reshape(-1, 1), state["carry"])
        score, origin, token = _continuations(next_logits(logits, net), state["score"])
        tokens = state["tokens"][which, origin].at[:, :, n].set(token)
        ends = token == end
        closes = ends & (jnp.arange(score.shape[1]) < width) & jnp.isfinite(score) & open_
        best = _better(state["best"], normalize(score, n + 1), tokens, closes)
        score, live = jax.lax.top_k(jnp.where(ends, -jnp.inf, score), width)
        carry = _rows(carry, (which * width + origin[which, live]).reshape(-1), net.carry_axis)
        finished = state["finished"] + closes.sum(1, dtype=jnp.int32)
        last, tokens = token[which, live], tokens[which, live]
        return _state(n + 1, carry, last, tokens, score, best, finished)

    state = _begin(carry, first, width, length, end, net.carry_axis)
    state = jax.lax.while_loop(going, body, state)
    cut_off = (state["finished"] < width)[:, None] & (state["n"] == length)
    return _better(state["best"], normalize(state["score"], length), state["tokens"], cut_off)


def _state(n, carry, last, tokens, score, best, finished) -> dict:
    """n: tokens so far; last [B, W], tokens [B, W, T] and score [B, W] of the live
    texts; best: the finished text [B, T] of the highest score [B]; finished [B]: how
    many have ended.
    """
    return dict(
        n=n, carry=carry, last=last, tokens=tokens, score=score, best=best, finished=finished
    )


def _begin(carry, first, width, length, end, axis) -> dict:
    """One live text a row, and width - 1 that have no probability."""
    batch = len(first)
    none = jnp.full((batch, width, length), end, jnp.int32)
    score = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf).astype(jnp.float32)
    score = jnp.broadcast_to(score, (batch, width))
    carry = _rows(carry, jnp.repeat(jnp.arange(batch), width), axis)
    last = jnp.repeat(first[:, None], width, 1)
    best = none[:, 0], jnp.full(batch, -jnp.inf)
    return _state(jnp.int32(0), carry, last, none, score, best, jnp.zeros(batch, jnp.int32))


def _continuations(logits, score):  # [B W, V], [B, W] -> scores, live texts and tokens [B, 2 W]
    """The best continuations of the live texts, the best first."""
    batch, width = score.shape
    logp = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch, width, -1)
    size = logp.shape[-1]
    every = (score[..., None] + logp).reshape(batch, -1)
    score, flat = jax.lax.top_k(every, min(2 * width, width * size))
    return score, flat // size, (flat % size).astype(jnp.int32)


def _better(best, score, tokens, allowed):  # ([B, T], [B]), [B, C], [B, C, T], [B, C] -> as best
    """The best so far, or the best of C others."""
    score = jnp.where(allowed, score, -jnp.inf)
    top = jnp.argmax(score, axis=1)
    value = jnp.take_along_axis(score, top[:, None], 1)[:, 0]
    found = value > best[1]
    text = jnp.where(found[:, None], tokens[jnp.arange(len(top)), top], best[0])
    return text, jnp.maximum(value, best[1])


def _rows(carry, rows, axis):
    """A carry whose batch consists of these rows of another."""
    return jax.tree.map(lambda x: x if x.ndim == 0 else jnp.take(x, rows, axis=axis), carry)

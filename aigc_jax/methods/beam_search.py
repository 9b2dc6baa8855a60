"""Beam search with a sequence network, inside a compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree
from aigc_jax.methods.decoding import next_logits


def search(
    apply: Callable,
    net: Any,
    carry: PyTree,
    first,
    width: int,
    length: int,
    *,
    end: int,
    penalty: float = 0.0,
) -> tuple[Array, ...]:  # [B] -> [B, length], [B]
    """Return the best texts that beam search finds after the tokens `first`.

    The score of a text of n tokens, including its end, is log p / ((5 + n) / 6)^penalty
    (Wu et al. 2016, eq. 14). Among the 2 W best continuations of the W live beams,
    those among the first W that end are finished, and the W best of the others stay
    alive. The search for a row ends when W texts are finished; texts truncated at
    `length` are candidates too.

    Args:
      apply: (tokens, carry) -> (logits, carry).
      net: the network.
      carry: the network's carry for the batch.
      first: tokens [B] after which the texts begin.
      width: the number W of beams.
      length: maximal number of tokens.
      end: the token that ends a text.
      penalty: exponent of the length normalization.

    Returns:
      Tokens [B, length], padded with `end`, and scores [B].
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


def _state(
    n: Array, carry: PyTree, last: Array, tokens: Array, score: Array, best: tuple, finished: Array
) -> dict:
    """Return the loop state as a dict.

    Args:
      n: number of tokens generated.
      carry: the network's carry, of B W rows.
      last: the last token [B, W] of each live text.
      tokens: the live texts [B, W, T].
      score: the log probabilities [B, W] of the live texts.
      best: the finished text [B, T] with the highest score, and that score [B].
      finished: number [B] of finished texts.
    """
    return dict(
        n=n, carry=carry, last=last, tokens=tokens, score=score, best=best, finished=finished
    )


def _begin(carry: PyTree, first: Array, width: int, length: int, end: int, axis: int) -> dict:
    """Return the state of one live text and width - 1 texts of score -inf per row."""
    batch = len(first)
    none = jnp.full((batch, width, length), end, jnp.int32)
    score = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf).astype(jnp.float32)
    score = jnp.broadcast_to(score, (batch, width))
    carry = _rows(carry, jnp.repeat(jnp.arange(batch), width), axis)
    last = jnp.repeat(first[:, None], width, 1)
    best = none[:, 0], jnp.full(batch, -jnp.inf)
    return _state(jnp.int32(0), carry, last, none, score, best, jnp.zeros(batch, jnp.int32))


def _continuations(
    logits: Array, score: Array
) -> tuple[Array, ...]:  # [B W, V], [B, W] -> scores, live texts and tokens [B, 2 W]
    """Return the 2 W best continuations of the live texts, in descending order."""
    batch, width = score.shape
    logp = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch, width, -1)
    size = logp.shape[-1]
    every = (score[..., None] + logp).reshape(batch, -1)
    score, flat = jax.lax.top_k(every, min(2 * width, width * size))
    return score, flat // size, (flat % size).astype(jnp.int32)


def _better(
    best: tuple[Array, Array], score: Array, tokens: Array, allowed: Array
) -> tuple[Array, Array]:  # ([B, T], [B]), [B, C], [B, C, T], [B, C] -> as best
    """Return the best of `best` and of C candidates that are allowed, per row."""
    score = jnp.where(allowed, score, -jnp.inf)
    top = jnp.argmax(score, axis=1)
    value = jnp.take_along_axis(score, top[:, None], 1)[:, 0]
    is_better = value > best[1]
    text = jnp.where(is_better[:, None], tokens[jnp.arange(len(top)), top], best[0])
    return text, jnp.maximum(value, best[1])


def _rows(carry: PyTree, rows, axis: int):
    """Return the carry of these rows of a batch."""
    return jax.tree.map(lambda x: x if x.ndim == 0 else jnp.take(x, rows, axis=axis), carry)

"""Beam search with a sequence network, inside a compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree
from aigc_jax.methods.decoding import next_token_logits


def search(
    apply: Callable[[Array, PyTree], tuple[Array, PyTree]],
    net: Any,
    carry: PyTree,
    first_tokens: Array,
    num_beams: int,
    max_tokens: int,
    *,
    end_token: int,
    length_penalty: float = 0.0,
) -> tuple[Array, Array]:  # [B] -> tokens [B, max_tokens], scores [B]
    """Return the best text that beam search finds after each of `first_tokens`.

    The score of a text of n tokens, including its end, is log p / ((5 + n) /
    6)^length_penalty (Wu et al. 2016, eq. 14). Among the 2 W best continuations of the
    W live beams, those among the first W that end are finished, and the W best of the
    others stay alive. The search for a row ends when W texts are finished; texts
    truncated at `max_tokens` are candidates too.

    Args:
      apply: (tokens, carry) -> (logits, carry).
      net: the network, with the attributes `vocabulary` and `carry_axis`, the axis of
        the batch in a carry.
      carry: the network's carry of B rows, with room for `max_tokens` tokens.
      first_tokens: tokens [B] after which the texts begin.
      num_beams: the number W of beams.
      max_tokens: maximal number of tokens.
      end_token: the token that ends a text.
      length_penalty: exponent of the length normalization; 0 for none.

    Returns:
      Tokens [B, max_tokens], padded with `end_token`, and scores [B].
    """
    which = jnp.arange(len(first_tokens))[:, None]
    normalize = lambda score, n: score / ((5 + n) / 6) ** length_penalty

    def going(state):
        return (state["n"] < max_tokens) & ~jnp.all(state["finished"] >= num_beams)

    def body(state):
        n, open_ = state["n"], (state["finished"] < num_beams)[:, None]
        logits, carry = apply(state["last"].reshape(-1, 1), state["carry"])
        score, origin, token = _continuations(next_token_logits(logits, net), state["score"])
        tokens = state["tokens"][which, origin].at[:, :, n].set(token)
        ends = token == end_token
        closes = ends & (jnp.arange(score.shape[1]) < num_beams) & jnp.isfinite(score) & open_
        best = _better(state["best"], normalize(score, n + 1), tokens, closes)
        score, live = jax.lax.top_k(jnp.where(ends, -jnp.inf, score), num_beams)
        carry = _take_rows(
            carry, (which * num_beams + origin[which, live]).reshape(-1), net.carry_axis
        )
        finished = state["finished"] + closes.sum(1, dtype=jnp.int32)
        last, tokens = token[which, live], tokens[which, live]
        return _make_state(n + 1, carry, last, tokens, score, best, finished)

    state = _start_beams(carry, first_tokens, num_beams, max_tokens, end_token, net.carry_axis)
    state = jax.lax.while_loop(going, body, state)
    cut_off = (state["finished"] < num_beams)[:, None] & (state["n"] == max_tokens)
    return _better(state["best"], normalize(state["score"], max_tokens), state["tokens"], cut_off)


def _make_state(
    n: Array,
    carry: PyTree,
    last: Array,
    tokens: Array,
    score: Array,
    best: tuple[Array, Array],
    finished: Array,
) -> dict[str, Any]:
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


def _start_beams(
    carry: PyTree, first_tokens: Array, num_beams: int, max_tokens: int, end_token: int, axis: int
) -> dict[str, Any]:
    """Return the loop state of one live text and num_beams - 1 texts of score -inf per
    row.
    """
    batch = len(first_tokens)
    none = jnp.full((batch, num_beams, max_tokens), end_token, jnp.int32)
    score = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf).astype(jnp.float32)
    score = jnp.broadcast_to(score, (batch, num_beams))
    carry = _take_rows(carry, jnp.repeat(jnp.arange(batch), num_beams), axis)
    last = jnp.repeat(first_tokens[:, None], num_beams, 1)
    best = none[:, 0], jnp.full(batch, -jnp.inf)
    return _make_state(jnp.int32(0), carry, last, none, score, best, jnp.zeros(batch, jnp.int32))


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


def _take_rows(carry: PyTree, rows: Array, axis: int) -> PyTree:
    """Return the carry of these rows of a batch."""
    return jax.tree.map(lambda x: x if x.ndim == 0 else jnp.take(x, rows, axis=axis), carry)

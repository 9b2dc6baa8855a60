"""Sampling of tokens from the logits of sequence networks (tokens [B, T], carry) ->
(logits [B, T, V], carry), and decoding without a prompt; `methods.text_decoder`
continues prompts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.rng import fold_in
from aigc_jax.utils.errors import mark_argument, require


class SamplingParams(NamedTuple):
    """How a token is sampled from the logits.

    The filters apply in the order of the fields, after the repetition penalty; tokens
    that a filter removes have probability 0.
    """

    temperature: float = 1.0  # divides the logits; 0: always the most likely token
    top_k: int = 0  # sample from the k most likely tokens; 0: from all
    # sample from the fewest most likely tokens whose total probability reaches p
    # (Holtzman et al. 2020, 3.1)
    top_p: float = 1.0
    # sample from tokens at least p times as likely as the top one (Nguyen et al. 2024)
    min_p: float = 0.0
    # divides positive and multiplies negative logits of the tokens in the prompt and
    # the generated text (Keskar et al. 2019)
    repetition: float = 1.0

    def check_ranges(self) -> None:
        """Raise a UserError where a number is out of range; NaN always is."""
        check_range(
            "temperature",
            self.temperature,
            1e-3,
            1e3,
            "0 selects the most probable token",
            also_valid=(0,),
        )
        check_range("top_k", self.top_k, 0, 2**31 - 1, "0 disables the filter", integer=True)
        check_range("top_p", self.top_p, 1e-9, 1, "1 disables the filter")
        check_range("min_p", self.min_p, 0, 0.999999, "0 disables the filter")
        check_range("repetition", self.repetition, 1e-3, 1e3, "1 disables the penalty")

    def structure(self) -> "SamplingParams":
        """Return the parameters that stand for all those which apply the same filters,
        and so can share a compiled program that takes their numbers as inputs. `top_k`
        is a shape, and unchanged.
        """
        return SamplingParams(
            temperature=float(self.temperature > 0),
            top_k=self.top_k,
            top_p=0.5 if self.top_p < 1 else 1.0,
            min_p=0.5 if self.min_p > 0 else 0.0,
            repetition=1.0 if self.repetition == 1 else 2.0,
        )


def check_range(
    name: str,
    value: Any,
    low: float,
    high: float,
    hint: str = "",
    also_valid: Sequence[float] = (),
    integer: bool = False,
) -> None:
    """Raise a UserError unless a number of the command line is valid; NaN never is.

    Args:
      name: name of the argument, for the message.
      value: the number; bool, str and other types are invalid.
      low: lowest valid number.
      high: highest valid number.
      hint: what the message ends with.
      also_valid: further valid numbers.
      integer: whether the number must be an integer.
    """
    number = isinstance(value, (int, np.integer) if integer else (int, float, np.number))
    kind = "an integer in" if integer else "a number in"
    other = "".join(f"{x} or " for x in also_valid)
    require(
        number and not isinstance(value, bool) and (value in also_valid or low <= value <= high),
        f"{mark_argument(name)}={value} must be {other}{kind} [{low:,}, {high:,}]"
        + f"; {hint}" * bool(hint),
    )


def filter_logits(
    logits: Array, present: Array, sampling: SamplingParams, traced: SamplingParams | None = None
) -> Array:  # [B, V], [B, <= V] -> [B, V], -inf for removed tokens
    """Return the logits after all filters (except a temperature of 0), -inf for removed
    tokens. Equal logits are ranked by token id, the lower id first. `present` marks the
    tokens that occurred, for the repetition penalty; ids past its columns did not.
    `sampling` selects the filters, `traced` has their numbers; None: the same numbers.
    """
    at = traced or sampling
    rows = jnp.arange(len(logits))[:, None]
    if sampling.repetition != 1:
        present = jnp.pad(present, ((0, 0), (0, logits.shape[1] - present.shape[1])))
        logits = jnp.where(
            present,
            jnp.where(logits > 0, logits / at.repetition, logits * at.repetition),
            logits,
        )
    if sampling.temperature > 0:
        logits = logits / at.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        likeliest = jax.lax.top_k(logits, sampling.top_k)[1]
        selected = jnp.zeros(logits.shape, bool).at[rows, likeliest].set(True)
        logits = jnp.where(selected, logits, -jnp.inf)
    if sampling.top_p < 1:
        order = jnp.argsort(-logits, axis=-1, stable=True)
        p = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
        before = jnp.cumsum(p, axis=-1) - p < at.top_p  # tokens before which p is not reached
        selected = jnp.zeros(logits.shape, bool).at[rows, order].set(before.at[:, 0].set(True))
        logits = jnp.where(selected, logits, -jnp.inf)
    if sampling.min_p > 0:
        logits = jnp.where(
            logits < logits.max(-1, keepdims=True) + jnp.log(at.min_p), -jnp.inf, logits
        )
    return logits


def next_token_logits(logits: Array, net: Any) -> Array:  # [B, T, V] -> [B, V], -inf for padding
    """Return the logits of the token after the last.

    A network has more columns than tokens (`layers.round_up_vocabulary`): the logits of
    the padding are -inf, so that they have probability 0 under all filters and
    temperatures.
    """
    return jnp.where(jnp.arange(logits.shape[-1]) < net.vocabulary, logits[:, -1], -jnp.inf)


def sample_token(
    key: Array,
    index: Array,
    position: Array,
    logits: Array,
    present: Array,
    sampling: SamplingParams,
    traced: SamplingParams | None = None,
) -> Array:  # [], [B], [], [B, V], [B, V] -> [B]
    """Sample one token for each row.

    Args:
      key: key of the generated text.
      index: numbers [B] of the rows, which key their noise.
      position: the position [] of the token, which keys its noise.
      logits: logits [B, V] of the token.
      present: tokens [B, V] that occurred; only used with a repetition penalty.
      sampling: the sampling parameters, which select the filters.
      traced: the numbers of the filters, as inputs of the program; None: those of
        `sampling`.

    Returns:
      Tokens int32 [B].
    """
    logits = filter_logits(logits.astype(jnp.float32), present, sampling, traced)
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    keys = jax.vmap(lambda i: fold_in(key, i, position))(index)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


PLAIN = SamplingParams()


def generate_tokens(
    apply: Callable[[Array, PyTree], tuple[Array, PyTree]],
    net: Any,
    key: Array,
    index: Array,
    start_token: int,
    length: int,
    sampling: SamplingParams = PLAIN,
) -> Array:  # -> [B, length], without the start token
    """Sample `length` tokens after `start_token`, without a prompt; traceable. No token
    ends a text, and the repetition penalty is not applied.

    Args:
      apply: (tokens, carry) -> (logits, carry).
      net: the network, as in `TextDecoder`.
      key: key of the generated text.
      index: numbers [B] of the rows, which key their noise.
      start_token: the token before the text, not returned.
      length: number of tokens.
      sampling: the sampling parameters; by default no filter.
    """

    def body(state, step):
        carry, token, present = state
        logits, carry = apply(token[:, None], carry)
        token = sample_token(key, index, step, next_token_logits(logits, net), present, sampling)
        return (carry, token, present), token

    first = jnp.full(len(index), start_token, jnp.int32)
    initial = (net.empty_carry(len(index), length), first, jnp.zeros((len(index), 1), bool))
    return jax.lax.scan(body, initial, jnp.arange(length))[1].T


def complete_masked(
    apply: Callable[[Array, PyTree], tuple[Array, PyTree]], net: Any, tokens: Array, mask: Array
) -> Array:  # [B, T + 1], [B, T] -> [B, T]
    """Replace masked tokens by the network's most likely tokens; traceable.

    Args:
      apply: (tokens, carry) -> (logits, carry).
      net: the network, as in `TextDecoder`.
      tokens: tokens [B, T + 1].
      mask: mask [B, T] of tokens[:, 1:]: 1 where a token is to be predicted.

    Returns:
      tokens[:, 1:], where each masked token is the most likely one after the returned
      tokens before it.
    """

    def body(state, at):
        carry, token = state
        following, masked = at
        logits, carry = apply(token[:, None], carry)
        token = jnp.where(
            masked > 0,
            jnp.argmax(next_token_logits(logits, net), axis=-1).astype(jnp.int32),
            following,
        )
        return (carry, token), token

    initial = (net.empty_carry(len(tokens), mask.shape[1]), tokens[:, 0])
    return jax.lax.scan(body, initial, (tokens[:, 1:].T, mask.T))[1].T

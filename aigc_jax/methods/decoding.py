"""Text from sequence networks, one token after another: (tokens [B, T], carry) ->
(logits [B, T, V], carry).

All rows of a batch stand at the same position: while a row's prompt lasts its next
token is given, afterwards it is chosen. So prompts of any lengths share a batch without
padding, for a cache of keys and values and for a recurrent state alike. What is chosen
for a row depends on the key, the row and the position, not on how many tokens a call of
the program writes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aigc_jax.core.rng import fold
from aigc_jax.utils.errors import argument, require

CHUNK = 16  # tokens that a call of the program writes
BLOCK = 64  # tokens of a prompt that are read at once


class Choice(NamedTuple):
    """How a token is chosen from the logits. The filters apply in this order; what a
    filter leaves out has no probability.
    """

    temperature: float = 1.0  # logits are divided by it; 0: always the likeliest token
    top_k: int = 0  # of the k likeliest; 0: of all
    # among the fewest likeliest with probability p in all (Holtzman et al. 2020, 3.1)
    top_p: float = 1.0
    min_p: float = 0.0  # of those at least p times as likely as the likeliest (Nguyen et al. 2024)
    # logits of tokens of the prompt and the text so far: divided by it where positive,
    # else multiplied (Keskar et al. 2019)
    repetition: float = 1.0

    def check(self):
        """Raise a UserError where a number is out of range; NaN lies in no range."""
        check_range(
            "temperature", self.temperature, 1e-3, 1e3, "0 takes the likeliest token", more=(0,)
        )
        check_range("top_k", self.top_k, 0, 2**31 - 1, "0 leaves all tokens", whole=True)
        check_range("top_p", self.top_p, 1e-9, 1, "1 leaves all tokens")
        check_range("min_p", self.min_p, 0, 0.999999, "0 leaves all tokens")
        check_range("repetition", self.repetition, 1e-3, 1e3, "1 changes nothing")


def check_range(name: str, value, low, high, hint: str = "", more=(), whole: bool = False):
    """Raise a UserError unless a number of the command line lies in [low, high] or is
    one of `more`.
    """
    number = isinstance(value, (int, np.integer) if whole else (int, float, np.number))
    kind = "a whole number in" if whole else "a number in"
    other = "".join(f"{x} or " for x in more)
    require(
        number and not isinstance(value, bool) and (value in more or low <= value <= high),
        f"{argument(name)}={value} must be {other}{kind} [{low:,}, {high:,}]"
        + f"; {hint}" * bool(hint),
    )


def filtered(logits, seen, choice: Choice):  # [B, V], [B, <= V] -> [B, V]
    """The logits after all filters but the temperature 0; -inf where a token is left
    out. Equal logits rank by their ids, the lower first.
    """
    rows = jnp.arange(len(logits))[:, None]
    if choice.repetition != 1:
        seen = jnp.pad(seen, ((0, 0), (0, logits.shape[1] - seen.shape[1])))
        logits = jnp.where(
            seen,
            jnp.where(logits > 0, logits / choice.repetition, logits * choice.repetition),
            logits,
        )
    if choice.temperature > 0:
        logits = logits / choice.temperature
    if 0 < choice.top_k < logits.shape[1]:
        likeliest = jax.lax.top_k(logits, choice.top_k)[1]
        kept = jnp.zeros(logits.shape, bool).at[rows, likeliest].set(True)
        logits = jnp.where(kept, logits, -jnp.inf)
    if choice.top_p < 1:
        order = jnp.argsort(-logits, axis=-1, stable=True)
        p = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
        before = (
            jnp.cumsum(p, axis=-1) - p < choice.top_p
        )  # those before which p was not reached yet
        kept = jnp.zeros(logits.shape, bool).at[rows, order].set(before.at[:, 0].set(True))
        logits = jnp.where(kept, logits, -jnp.inf)
    if choice.min_p > 0:
        logits = jnp.where(
            logits < logits.max(-1, keepdims=True) + jnp.log(choice.min_p), -jnp.inf, logits
        )
    return logits


def next_logits(logits, net):  # [B, T, V] -> [B, V]
    """Those of the token after the last. A network has more columns than tokens
    (`layers.padded`): the others have no probability, whatever a filter or a
    temperature does to the logits.
    """
    return jnp.where(jnp.arange(logits.shape[-1]) < net.vocabulary, logits[:, -1], -jnp.inf)


def pick(key, index, position, logits, seen, choice: Choice):  # [], [B], [], [B, V], [B, V] -> [B]
    """A token for each row."""
    logits = filtered(logits.astype(jnp.float32), seen, choice)
    if choice.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    keys = jax.vmap(lambda i: fold(key, i, position))(index)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


PLAIN = Choice()


def free(
    apply: Callable, net, key, index, start: int, length: int, choice: Choice = PLAIN
):  # -> [B, length]
    """Text from nothing, inside a program: `length` tokens after `start`."""

    def body(state, position):
        carry, token, seen = state
        logits, carry = apply(token[:, None], carry)
        token = pick(key, index, position, next_logits(logits, net), seen, choice)
        return (carry, token, seen), token

    first = jnp.full(len(index), start, jnp.int32)
    begin = (net.carry(len(index), length), first, jnp.zeros((len(index), 1), bool))
    return jax.lax.scan(body, begin, jnp.arange(length))[1].T


def answer(apply: Callable, net, tokens, asked):  # [B, T + 1], [B, T] -> [B, T]
    """What follows each token, inside a program: as given, and the likeliest where
    `asked` is 1, which is then what the network reads on.
    """

    def body(state, at):
        carry, token = state
        following, wanted = at
        logits, carry = apply(token[:, None], carry)
        token = jnp.where(
            wanted > 0, jnp.argmax(next_logits(logits, net), axis=-1).astype(jnp.int32), following
        )
        return (carry, token), token

    begin = (net.carry(len(tokens), asked.shape[1]), tokens[:, 0])
    return jax.lax.scan(body, begin, (tokens[:, 1:].T, asked.T))[1].T


def to_front(tokens, asked, filler: int):  # [B, T], [B, T] -> [B, T]
    """Each row from its first asked token on, filled up."""
    place = jnp.argmax(asked > 0, axis=1)[:, None] + jnp.arange(tokens.shape[1])
    moved = jnp.take_along_axis(tokens, jnp.minimum(place, tokens.shape[1] - 1), axis=1)
    return jnp.where(place < tokens.shape[1], moved, filler)


class Writing(NamedTuple):
    """Where the rows stand."""

    carry: object
    token: jax.Array  # [B] the last of each, which the network has not seen yet
    position: jax.Array  # [] tokens written or given since the beginning, for the keys
    done: jax.Array  # [B] the end of its text is there
    seen: jax.Array  # [B, V] tokens that are there; [B, 1] where nobody asks


class Writer:
    """Writes on after prompts with compiled programs, a chunk of tokens a call.

    apply      (params, tokens, carry) -> (logits, carry)
    net        its `carry(batch, length)`, its `vocabulary`, and `capacity`: the most
               positions it has, or None where it needs none
    ends       the tokens that end a text; with none of them a text has as many tokens
               as are asked for
    """

    def __init__(self, apply: Callable, net, params, choice: Choice, ends: tuple[int, ...]):
        choice.check()
        self.net, self.params, self.ends, self.choice = net, params, tuple(ends), choice
        self._read = jax.jit(partial(_read, apply), donate_argnums=(1,))
        self._write = jax.jit(partial(_write, apply, net, choice, self.ends), donate_argnums=(1,))
        self.chunk = CHUNK if net.capacity is None else max(1, min(CHUNK, net.capacity // 4))

    def begin(self, texts, room, position, seen):
        """The rows before all but the last token of what their prompts share in length,
        and how many tokens that is.
        """
        width = len(texts)
        read, shared = 0, min(map(len, texts)) - 1
        writing = Writing(
            self.net.carry(width, room),
            jnp.array([t[0] for t in texts], jnp.int32),
            jnp.int32(position),
            jnp.zeros(width, bool),
            jnp.asarray(seen),
        )
        while shared - read >= BLOCK:
            part = np.array([t[read : read + BLOCK + 1] for t in texts], np.int32)
            writing = self._read(self.params, writing, part)
            read += BLOCK
        return writing, read

    def seen(self, texts):  # -> [B, V]; [B, 1] where no filter asks
        """Which tokens are in each text, of whatever length: what a network's positions
        no longer hold counts too, as in the RepetitionPenaltyLogitsProcessor of
        `transformers`.
        """
        seen = np.zeros(
            (len(texts), self.net.vocabulary if self.choice.repetition != 1 else 1), bool
        )
        if self.choice.repetition != 1:
            for row, text in zip(seen, texts, strict=True):
                row[text] = True
        return seen

    def write(self, prompts: list, num: int, key, first: int = 0) -> Iterator[np.ndarray]:
        """Yields [B, n] of tokens as they are written: -1 where a row's prompt still
        lasts, its text has ended or it has its `num`.

        Where a network has no position left, the text goes on from the last half of
        what it has; a prompt is cut to the last tokens that leave a quarter of the
        positions free. first: the number of the first row, which keys its noise.
        """
        require(all(len(p) for p in prompts), "a prompt must hold at least one token")
        limit, prompts = self.net.capacity, [list(map(int, p)) for p in prompts]
        texts = [p[-max(1, limit - self.chunk) :] if limit else list(p) for p in prompts]
        index = np.arange(first, first + len(texts), dtype=np.int32)
        need = -(-(max(map(len, texts)) + num + self.chunk) // BLOCK) * BLOCK
        room = need if limit is None else min(limit, need)
        written, ended = np.zeros(len(texts), int), np.zeros(len(texts), bool)
        # `base`: tokens left behind; `position`: where rows stand, from the beginning.
        base = position = 0
        writing, position = self.begin(texts, room, 0, self.seen(prompts))
        while ((written < num) & ~ended).any():
            if limit and position - base + self.chunk > limit:
                base, seen = position + 1 - max(1, limit // 2), writing.seen
                writing, read = self.begin([t[base:] for t in texts], room, base, seen)
                writing, position = writing._replace(done=jnp.array(ended)), base + read
                continue
            forced = np.full((len(texts), self.chunk), -1, np.int32)
            for row, text in zip(forced, texts, strict=True):
                ahead = text[position + 1 : position + 1 + self.chunk]
                row[: len(ahead)] = ahead
            writing, tokens = self._write(self.params, writing, forced, index, key)
            yield self._added(np.asarray(tokens), texts, position, num, written, ended)
            position += self.chunk

    def _added(self, tokens, texts, position, num, written, ended):  # [B, n] -> [B, n]
        """Adds to the texts, and to what is known of them, the tokens that were chosen
        at the positions after this one; returns what is new.
        """
        new = np.full(tokens.shape, -1)
        for b, text in enumerate(texts):
            for i in range(
                max(0, len(text) - position - 1), self.chunk
            ):  # not the prompt, nor what was read again
                text.append(int(tokens[b, i]))
                ended[b] |= text[-1] in self.ends
                if written[b] < num and not ended[b]:
                    new[b, i] = tokens[b, i]
                    written[b] += 1
        return new


# part [B, BLOCK + 1]: its last token is the first that is not read.
def _read(apply, params, writing: Writing, part):
    carry = apply(params, part[:, :-1], writing.carry)[1]
    return writing._replace(
        carry=carry, token=part[:, -1], position=writing.position + part.shape[1] - 1
    )


def _write(
    apply, net, choice, ends, params, writing: Writing, forced, index, key
):  # forced [B, n]: -1 where a token is to be chosen
    def body(writing, given):
        logits, carry = apply(params, writing.token[:, None], writing.carry)
        token = pick(key, index, writing.position, next_logits(logits, net), writing.seen, choice)
        token = jnp.where(given >= 0, given, jnp.where(writing.done, writing.token, token))
        done = writing.done | ((given < 0) & jnp.isin(token, jnp.array(ends, jnp.int32)))
        return Writing(carry, token, writing.position + 1, done, _mark(writing.seen, token)), token

    writing, tokens = jax.lax.scan(body, writing, forced.T)
    return writing, tokens.T


def _mark(seen, token):  # [B, V], [B] -> [B, V]
    return seen if seen.shape[1] == 1 else seen.at[jnp.arange(len(seen)), token].set(True)

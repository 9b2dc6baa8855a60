"""The order of examples as a pure function of (key, step): shuffles without stored
permutations, streams, fixed orders.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.method import Array
from aigc_jax.core.rng import DATA, fold_in
from aigc_jax.data.dataset import Dataset
from aigc_jax.utils.errors import choose, require


def hash_uint32(x: Any) -> Any:  # uint32 [...] -> uint32 [...], a bijection
    """Apply MurmurHash3's finalizer to uint32, a bijection whose output bits depend on
    all input bits.
    """
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permute_indices(indices: Any, round_keys: Any, n: int) -> Any:  # [B], [B, R] or [1, R] -> [B]
    """Apply a keyed pseudo-random permutation of 0 .. n-1 to each index, in O(1) per
    index and without a table. NumPy and JAX arrays yield the same values.

    R rounds of a Feistel network act on the digits of a two-digit number with radices
    a * b >= n. Results >= n are permuted again until they are below n (cycle walking:
    Black & Rogaway 2002, sections 3 and 4). Few are, because a and b are close to
    sqrt(n).

    Args:
      indices: integers below n, [B].
      round_keys: uint32 [B, R], or [1, R] for the same permutation of all indices.
      n: the size of the domain.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def network(x):
        left, right = x // b, x % b
        for r in range(round_keys.shape[-1]):
            if r % 2:
                right = (right + hash_uint32(left ^ round_keys[:, r]) % b) % b
            else:
                left = (left + hash_uint32(right ^ round_keys[:, r]) % a) % a
        return left * b + right

    if isinstance(indices, np.ndarray):
        x = network(indices.astype(np.uint32))
        while (x >= n).any():
            x = np.where(x < n, x, network(x))
        return x
    walk = lambda x: jnp.where(x < n, x, network(x))
    return jax.lax.while_loop(lambda x: jnp.any(x >= n), walk, network(indices.astype(jnp.uint32)))


ROUNDS = 6
FIXED_KEYS = hash_uint32(np.arange(1, ROUNDS + 1, dtype=np.uint32))[None]


def permute_fixed(positions: np.ndarray, count: int) -> np.ndarray:  # [n] -> int64 [n] < count
    """Apply a fixed pseudo-random permutation of 0 .. count-1, the same on every
    machine, to each position modulo `count`.

    Metrics and samplers that use a part of a split (for example to condition samples
    on examples) take it in this order: splits may be sorted by class, or cycle through
    the classes, where the first n, every k-th, or any other arithmetic progression of
    examples would miss some of the classes.

    Args:
      positions: integers [n], any; taken modulo `count`.
      count: number of examples of the split.
    """
    return permute_indices(np.asarray(positions, np.int64) % count, FIXED_KEYS, count).astype(
        np.int64
    )


def divmod_product(
    r: Array, b: int, n: int
) -> tuple[Array, Array]:  # uint32 [...] -> (r b // n, r b mod n)
    """Return (r b // n, r b mod n). The product may exceed 32 bits: it is computed
    digit by digit of b.

    Args:
      r: uint32 array, values below n.
      b: a nonnegative integer.
      n: a positive integer below 2^30.
    """
    # Bits of a digit: the remainder shifted by them plus r times a digit is below 2^32.
    bits = 31 - n.bit_length()
    quotient, remainder = jnp.zeros_like(r), jnp.zeros_like(r)
    for i in reversed(range(-(-b.bit_length() // bits))):
        part = (remainder << bits) + r * np.uint32(b >> (i * bits) & (2**bits - 1))
        quotient, remainder = (quotient << bits) + part // n, part % n
    return quotient, remainder


def make_epoch_positions(
    num_examples: int, batch_size: int
) -> Callable[[Array], tuple[Array, Callable]]:  # step -> (place in the epoch [B], each)
    """Return step -> (place [B], each), the positions of a batch in an endless stream
    of epochs of n = num_examples.

    Example i of step s has position p = s B + i in the stream, epoch p // n and place
    p mod n within the epoch. A batch may begin in one epoch and end in the next.
    `each(f)` is f(epoch) of every example, computed once per epoch.

    Args:
      num_examples: of an epoch, below 2^30.
      batch_size: examples of a batch, B.
    """
    require(num_examples < 2**30, f"{num_examples:,} training examples are more than 2^30")
    epochs = batch_size // num_examples + 2  # that a batch may span

    def at(step):
        step = step.astype(jnp.uint32)
        quotient, remainder = divmod_product(step % num_examples, batch_size, num_examples)
        first = (step // num_examples) * batch_size + quotient
        offset = remainder + jnp.arange(batch_size, dtype=jnp.uint32)
        each = lambda f: jax.vmap(lambda e: f(first + e))(jnp.arange(epochs, dtype=jnp.uint32))[
            offset // num_examples
        ]
        return offset % num_examples, each

    return at


def make_shuffled_rows(
    num_examples: int, batch_size: int
) -> Callable[[Array, Array], Array]:  # (key, step) -> rows int32 [B]
    """Return (key, step) -> rows [B]. Successive steps visit all examples in a new
    order each epoch, and no example is dropped: a row is the image of the example's
    place under the permutation of its epoch.

    Args:
      num_examples: below 2^30.
      batch_size: examples of a batch, B.
    """
    at = make_epoch_positions(num_examples, batch_size)

    def rows(key, step):
        place, each = at(step)
        keys = each(lambda epoch: jax.random.bits(fold_in(key, DATA, epoch), (ROUNDS,), jnp.uint32))
        return permute_indices(place, keys, num_examples).astype(jnp.int32)

    return rows


def make_epoch_words(
    num_examples: int, batch_size: int
) -> Callable[[Array, Array], Array]:  # (key, step) -> uint32 [B]
    """Return (key, step) -> uint32 [B], a random word per example that is constant
    within an epoch.
    """
    at = make_epoch_positions(num_examples, batch_size)
    return lambda key, step: at(step)[1](
        lambda epoch: jax.random.bits(fold_in(key, DATA, epoch, 1), (), jnp.uint32)
    )


def make_shuffled_order(
    derive_key: Callable, dataset: Dataset, config: ConfigDict, batch_size: int
) -> Callable:  # (key, step) -> {"rows": [B], "words": [B]}
    """Return (key, step) -> {"rows": [B], "words": [B]}, which visits every example
    once per epoch, in a new order. "words" are present where `Dataset.vary` is.

    Args:
      derive_key: (key of the trial, config.seed) -> key of the order.
      dataset: the data set.
      config: the `data` section of a config.
      batch_size: examples per step, B.
    """
    n = dataset.splits["train"][1]
    parts = dict(rows=make_shuffled_rows(n, batch_size)) | (
        {} if dataset.vary is None else dict(words=make_epoch_words(n, batch_size))
    )
    return lambda key, step: {
        name: f(derive_key(key, config.seed), step) for name, f in parts.items()
    }


def make_stream_order(
    dataset: Dataset, _config: ConfigDict, batch_size: int
) -> Callable:  # (key, step) -> {"rows": [B], "fresh": [B]}
    """Return (key, step) -> {"rows": [B], "fresh": [B]} of B contiguous streams, for
    truncated back-propagation: at each step, stream b continues with the example after
    its last one.

    A stream has n // B examples and then restarts, which "fresh" marks; up to B - 1
    examples at the end of the split are dropped.

    Args:
      dataset: the data set.
      _config: unused.
      batch_size: number of streams B, one for each row of a batch.

    Raises:
      UserError: the training split has fewer than B examples.
    """
    n = dataset.splits["train"][1]
    require(
        n >= batch_size,
        f"config.batch_size = {batch_size} streams (config.data.order = 'stream') must not "
        f"outnumber the {n} training examples",
    )
    per = n // batch_size
    first = per * np.arange(batch_size, dtype=np.int32)
    return lambda key, step: dict(
        rows=first + step % per, fresh=jnp.full(batch_size, step % per == 0)
    )


# config.data.order -> (dataset, config.data, batch_size) -> (key, step) -> {"rows":
# [B], ...}
ORDERS: dict[str, Callable[[Dataset, ConfigDict, int], Callable]] = {
    "trial": functools.partial(make_shuffled_order, lambda key, seed: key),
    "shared": functools.partial(make_shuffled_order, lambda key, seed: jax.random.key(seed)),
    "stream": make_stream_order,
}


def make_batch_order(
    dataset: Dataset, config: ConfigDict, batch_size: int
) -> Callable:  # (key, step) -> {"rows": [B], ...}
    """Return (key, step) -> {"rows": [B], ...} of the training split, by config.order.
    Further entries are "words" [B], which augment the examples, or "fresh" [B].

    Args:
      dataset: the data set.
      config: the `data` section of a config, with order and seed.
      batch_size: examples per step, B.
    """
    require(
        batch_size > 0,
        f"config.batch_size gives {batch_size} examples per step, which must be at least 1",
    )
    return choose(ORDERS, config.order, "config.data.order")(dataset, config, batch_size)


def make_train_batch_reader(
    dataset: Dataset,
    config: ConfigDict,
    batch_size: int,
    constrain: Callable = lambda batch: batch,
    replicate: Callable = lambda places: places,
) -> Callable:  # (arrays, key, step) -> batch
    """Return (arrays, key, step) -> batch of the training split.

    Args:
      dataset: the data set.
      config: the `data` section of a config, with order and seed.
      batch_size: examples per step, B.
      constrain: shards a batch over the devices; by default the identity.
      replicate: replicates the rows and words, by default the identity: to compute them
        on every device costs less than to communicate them.
    """
    places_at = make_batch_order(dataset, config, batch_size)

    def draw(arrays, key, step):
        places = constrain(
            replicate(places_at(key, step)) | dict(index=jnp.arange(batch_size, dtype=jnp.int32))
        )
        inputs = [places.pop(name) for name in ("rows", "words") if name in places]
        take = dataset.vary if dataset.vary and len(inputs) == 2 else dataset.take
        return constrain(take(arrays, *inputs)) | places

    return draw

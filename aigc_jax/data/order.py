"""The order of examples as a pure function of (key, step): shuffles without tables,
streams, orders that never change.
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
from aigc_jax.core.rng import DATA, fold
from aigc_jax.data.dataset import Dataset
from aigc_jax.utils.errors import choose, require


def mix(x: Any) -> Any:
    """MurmurHash3's finalizer, a bijection: output bits depend on all input bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permute(index: Any, keys: Any, n: int) -> Any:  # [B], [B, R] or [1, R] -> [B]
    """Where a keyed pseudo-random permutation of 0 .. n-1 sends each index, in O(1) an
    index, without a table; of NumPy arrays and of JAX's the same.

    R rounds of a Feistel network on the digits of a two-digit number of radices a * b
    >= n; what falls past n is sent on until it does not (cycle walking: Black & Rogaway
    2002, sections 3 and 4). a and b lie next to sqrt(n), so that few do.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def network(x):
        left, right = x // b, x % b
        for r in range(keys.shape[-1]):
            if r % 2:
                right = (right + mix(left ^ keys[:, r]) % b) % b
            else:
                left = (left + mix(right ^ keys[:, r]) % a) % a
        return left * b + right

    if isinstance(index, np.ndarray):
        x = network(index.astype(np.uint32))
        while (x >= n).any():
            x = np.where(x < n, x, network(x))
        return x
    walk = lambda x: jnp.where(x < n, x, network(x))
    return jax.lax.while_loop(lambda x: jnp.any(x >= n), walk, network(index.astype(jnp.uint32)))


ROUNDS = 6
FIXED_KEYS = mix(np.arange(1, ROUNDS + 1, dtype=np.uint32))[None]


def fixed_order(index: np.ndarray, count: int) -> np.ndarray:  # [n] -> int64 [n]
    """Numbers `index` of a pseudo-random order of 0 .. count-1 that is the same on
    every machine; it repeats after `count`.

    Whatever takes a part of a split (metrics, samples that are conditioned on examples)
    takes it in this order: splits may be sorted by class, or hold the classes one after
    another, where the first n, every k-th, or any other arithmetic progression would
    miss some of them.
    """
    return permute(np.asarray(index, np.int64) % count, FIXED_KEYS, count).astype(np.int64)


def divided_product(r: Array, b: int, n: int) -> tuple[Array, Array]:
    """(r b // n, r b mod n) of unsigned numbers r < n < 2^30, whose product may be too
    long for 32 bits: digit after digit of b.
    """
    # Bits of a digit: the rest shifted by them, and r times the digit, stay below 2^32.
    bits = 31 - n.bit_length()
    whole, rest = jnp.zeros_like(r), jnp.zeros_like(r)
    for i in reversed(range(-(-b.bit_length() // bits))):
        part = (rest << bits) + r * np.uint32(b >> (i * bits) & (2**bits - 1))
        whole, rest = (whole << bits) + part // n, part % n
    return whole, rest


def endless(n: int, batch_size: int) -> Callable:
    """step -> (place [B], each): the examples of a step in an endless stream of epochs
    of n.

    Example i of step s is number p = s B + i of the stream; its epoch is p // n, its
    place there p mod n. A batch may begin in one epoch and end in the next. `each(f)`
    is f(epoch) for every example, computed once an epoch.
    """
    require(n < 2**30, f"{n:,} training examples are more than 2^30")
    epochs = batch_size // n + 2  # that a batch may touch

    def at(step):
        step = step.astype(jnp.uint32)
        whole, rest = divided_product(step % n, batch_size, n)
        first = (step // n) * batch_size + whole
        offset = rest + jnp.arange(batch_size, dtype=jnp.uint32)
        each = lambda f: jax.vmap(lambda e: f(first + e))(jnp.arange(epochs, dtype=jnp.uint32))[
            offset // n
        ]
        return offset % n, each

    return at


def shuffled(n: int, batch_size: int) -> Callable:
    """(key, step) -> rows [B]: step after step runs through 0 .. n-1 in a new order
    each epoch, without a remainder: a row is where the permutation of its epoch sends
    an example's place in it.
    """
    at = endless(n, batch_size)

    def rows(key, step):
        place, each = at(step)
        keys = each(lambda epoch: jax.random.bits(fold(key, DATA, epoch), (ROUNDS,), jnp.uint32))
        return permute(place, keys, n).astype(jnp.int32)

    return rows


def varied(n: int, batch_size: int) -> Callable:
    """(key, step) -> uint32 [B]: a word for each example, the same in all its epoch."""
    at = endless(n, batch_size)
    return lambda key, step: at(step)[1](
        lambda epoch: jax.random.bits(fold(key, DATA, epoch, 1), (), jnp.uint32)
    )


def shuffle(key_of: Callable, dataset: Dataset, config: ConfigDict, batch_size: int) -> Callable:
    """Every example once an epoch, in a new order; varied where the data set can be."""
    n = dataset.splits["train"][1]
    parts = dict(rows=shuffled(n, batch_size)) | (
        {} if dataset.vary is None else dict(words=varied(n, batch_size))
    )
    return lambda key, step: {name: f(key_of(key, config.seed), step) for name, f in parts.items()}


def streams(dataset: Dataset, config: ConfigDict, batch_size: int) -> Callable:
    """B contiguous streams, for truncated back-propagation: the example of stream b
    follows, step after step, the one before it.

    Each has n // B examples and then begins anew, which `fresh` [B] says; up to B - 1
    examples at the end are left out.
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


# config.data.order -> (dataset, config.data, batch_size) -> (key, step) -> rows [B] and
# what goes with them
ORDERS: dict[str, Callable[[Dataset, ConfigDict, int], Callable]] = {
    "trial": functools.partial(shuffle, lambda key, seed: key),
    "shared": functools.partial(shuffle, lambda key, seed: jax.random.key(seed)),
    "stream": streams,
}


def places(dataset: Dataset, config: ConfigDict, batch_size: int) -> Callable:
    """(key, step) -> {"rows": [B], ...} of the training split, and perhaps "words" [B]
    by which they vary, or what else is to be known of them.
    """
    require(
        batch_size > 0,
        f"config.batch_size gives {batch_size} examples a step; it must be at least 1",
    )
    return choose(ORDERS, config.order, "config.data.order")(dataset, config, batch_size)


def source(
    dataset: Dataset,
    config: ConfigDict,
    batch_size: int,
    lay: Callable = lambda batch: batch,
    whole: Callable = lambda places: places,
) -> Callable:
    """`source(arrays, key, step) -> batch` of the training split. `lay` divides the
    batch over the devices; `whole` keeps what it is of on all of them, which is less
    work than agreeing on it.
    """
    at = places(dataset, config, batch_size)

    def draw(arrays, key, step):
        picked = lay(whole(at(key, step)) | dict(index=jnp.arange(batch_size, dtype=jnp.int32)))
        chosen = [picked.pop(name) for name in ("rows", "words") if name in picked]
        take = dataset.vary if dataset.vary and len(chosen) == 2 else dataset.take
        return lay(take(arrays, *chosen)) | picked

    return draw

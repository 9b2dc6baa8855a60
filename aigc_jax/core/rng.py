"""Streams of random numbers: every draw is keyed by its purpose."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from aigc_jax.core.axes import with_logical_constraint
from aigc_jax.core.method import Array

# Streams other than those of the steps, whose numbers are below 2^31.
INIT, DATA, EVALUATE, SAMPLE = (2**31 + i for i in range(4))


def fold_in(key: Array, *numbers: ArrayLike) -> Array:
    """Apply `jax.random.fold_in` to a key with several numbers, in their order."""
    for number in numbers:
        key = jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))
    return key


def sample_key(key: Array, seed: ArrayLike) -> Array:  # [], [] -> []
    """Return the key of the samples of a user's seed, by the key of a state."""
    return fold_in(key, SAMPLE, seed)


def normal_by_index(
    key: Array, index: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:  # [B] -> [B, *shape]
    """Return standard normal numbers, each row keyed by its index. They are independent
    of batching and sharding, except for rounding: the last bit may depend on the vector
    lane that computes a number.

    Args:
      key: the key of the draw, common to all rows.
      index: integers [B], the number of each example; rows of the same index are equal.
      shape: of the noise of one example.
      dtype: of the noise.
    """
    return with_logical_constraint(
        jax.vmap(lambda i: jax.random.normal(fold_in(key, i), shape, dtype))(index), "examples"
    )

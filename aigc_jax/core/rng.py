"""Streams of random numbers: every draw is keyed by its purpose."""

from typing import Any

import jax
import jax.numpy as jnp

from aigc_jax.core.axes import with_logical_constraint
from aigc_jax.core.method import Array

# Streams other than those of the steps, whose numbers are below 2^31.
INIT, DATA, EVALUATE, SAMPLE = (2**31 + i for i in range(4))


def fold_in(key: Array, *numbers: Any) -> Array:
    """Apply `jax.random.fold_in` to a key with several numbers, in their order."""
    for number in numbers:
        key = jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))
    return key


def example_noise(
    key: Array, index: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:  # [B] -> [B, *shape]
    """Return standard normal numbers, each row keyed by its index. They are independent
    of batching and sharding, except for rounding: the last bit may depend on the vector
    lane that computes a number.
    """
    return with_logical_constraint(
        jax.vmap(lambda i: jax.random.normal(fold_in(key, i), shape, dtype))(index), "examples"
    )

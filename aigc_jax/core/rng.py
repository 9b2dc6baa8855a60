"""Streams of random numbers: every draw is keyed by what it is for."""

from typing import Any

import jax
import jax.numpy as jnp

from aigc_jax.core.axes import axes
from aigc_jax.core.method import Array

# Streams of randomness beside the steps', whose numbers lie below 2^31.
INIT, DATA, EVALUATE, SAMPLE = (2**31 + i for i in range(4))


def fold(key: Array, *numbers: Any) -> Array:
    """fold_in of several numbers, one after another."""
    for number in numbers:
        key = jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))
    return key


def noise(
    key: Array, index: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:  # [B] -> [B, *shape]
    """Standard normal numbers, each row keyed by its own index: but for rounding (the
    last bit may follow the vector lane that a number falls into) they depend on neither
    batching nor sharding.
    """
    return axes(
        jax.vmap(lambda i: jax.random.normal(fold(key, i), shape, dtype))(index), "examples"
    )

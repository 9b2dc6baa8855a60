"""The cross-entropy of tokens, without storing the array of all probabilities."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree


def along_vocabulary(reduce: Callable, x: Array) -> Array:  # [..., V] -> [...]
    """Reduce the last axis in steps of at most 32 elements where such a divisor exists:
    on CPUs XLA makes two passes over longer reductions.
    """
    while x.shape[-1] > 32 and (part := max(n for n in range(1, 33) if x.shape[-1] % n == 0)) > 1:
        x = reduce(x.reshape(*x.shape[:-1], part, -1), axis=-2)
    return reduce(x, axis=-1)


def in_chunks(
    score: Callable, x: Array, target: Array, size
) -> Array:  # [B, T, D], [B, T] -> [B, T]
    """Return score(x, target), computed for chunks of `size` positions.

    Intermediate values such as logits exist for one chunk at a time, in the forward and
    the backward pass.
    """
    parts = lambda y: y.reshape(len(y), -1, size, *y.shape[2:]).swapaxes(0, 1)
    each = jax.lax.map(jax.checkpoint(lambda part: score(*part)), (parts(x), parts(target)))
    return each.swapaxes(0, 1).reshape(target.shape)


def _cross_entropy(logits: Array, target: Array, smoothing: float, size):
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    top = jax.lax.stop_gradient(along_vocabulary(jnp.max, x))
    total = top + jnp.log(along_vocabulary(jnp.sum, jnp.exp(x - top[..., None])))
    ids = jnp.arange(x.shape[-1])
    # The target's logit is a masked sum, which can be partitioned over devices, unlike
    # a gather.
    value = total - along_vocabulary(jnp.sum, jnp.where(ids == target[..., None], x, 0))
    if smoothing:
        value = (1 - smoothing) * value + smoothing * (
            total - along_vocabulary(jnp.sum, jnp.where(ids < size, x, 0)) / size
        )
    return value, (logits, target, total)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def cross_entropy(
    logits: Array, target: Array, smoothing: float, size
) -> Array:  # [..., V], [...] -> [...]
    """Return -log softmax(logits)[target] in nats.

    With label smoothing s the target distribution is (1 - s) onehot + s / size over the
    first `size` ids (Szegedy et al. 2016, section 7), and the minimum of the loss is
    the entropy of that distribution. The gradient is softmax(logits) minus the target
    distribution, computed from the logits in one pass.
    """
    return _cross_entropy(logits, target, smoothing, size)[0]


def _cross_entropy_gradient(smoothing: float, size, saved: tuple, g: PyTree):
    logits, target, total = saved
    ids = jnp.arange(logits.shape[-1])
    goal = (1 - smoothing) * (ids == target[..., None]) + (
        smoothing / size * (ids < size) if smoothing else 0
    )
    p = jnp.exp(logits.astype(total.dtype) - total[..., None])
    return (g[..., None] * (p - goal)).astype(logits.dtype), None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_gradient)

"""The cross-entropy of tokens, without storing the array of all probabilities."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array, PyTree


def reduce_vocabulary(reduce: Callable, x: Array) -> Array:  # [..., V] -> [...]
    """Reduce the last axis in steps of at most 32 elements where such a divisor exists:
    on CPUs XLA makes two passes over longer reductions.

    Args:
      reduce: (array, axis=) -> array, associative and commutative, such as `jnp.sum`.
      x: array [..., V].
    """
    while x.shape[-1] > 32 and (part := max(n for n in range(1, 33) if x.shape[-1] % n == 0)) > 1:
        x = reduce(x.reshape(*x.shape[:-1], part, -1), axis=-2)
    return reduce(x, axis=-1)


def score_in_chunks(
    score: Callable[[Array, Array], Array], x: Array, target: Array, chunk_size: int
) -> Array:  # [B, T, D], [B, T] -> [B, T]
    """Return score(x, target), computed for chunks of `chunk_size` positions.

    Intermediate values such as logits exist for one chunk at a time, in the forward and
    the backward pass.

    Args:
      score: (x [B, chunk_size, D], target [B, chunk_size]) -> [B, chunk_size],
        independent of other positions.
      x: features [B, T, D].
      target: tokens [B, T].
      chunk_size: number of positions of a chunk, a divisor of T.
    """
    parts = lambda y: y.reshape(len(y), -1, chunk_size, *y.shape[2:]).swapaxes(0, 1)
    each = jax.lax.map(jax.checkpoint(lambda part: score(*part)), (parts(x), parts(target)))
    return each.swapaxes(0, 1).reshape(target.shape)


def _cross_entropy(logits: Array, target: Array, smoothing: float, size: int):
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    top = jax.lax.stop_gradient(reduce_vocabulary(jnp.max, x))
    total = top + jnp.log(reduce_vocabulary(jnp.sum, jnp.exp(x - top[..., None])))
    ids = jnp.arange(x.shape[-1])
    # The target's logit is a masked sum, which can be partitioned over devices, unlike
    # a gather.
    value = total - reduce_vocabulary(jnp.sum, jnp.where(ids == target[..., None], x, 0))
    if smoothing:
        value = (1 - smoothing) * value + smoothing * (
            total - reduce_vocabulary(jnp.sum, jnp.where(ids < size, x, 0)) / size
        )
    return value, (logits, target, total)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def cross_entropy(
    logits: Array, target: Array, label_smoothing: float, vocabulary: int
) -> Array:  # [..., V], [...] -> [...]
    """Return -log softmax(logits)[target] in nats.

    With label smoothing s the target distribution is (1 - s) onehot + s / vocabulary
    over the first `vocabulary` ids (Szegedy et al. 2016, section 7), and the minimum of
    the loss is the entropy of that distribution. The gradient is softmax(logits) minus
    the target distribution, computed from the logits in one pass.

    Args:
      logits: logits [..., V], whose columns from `vocabulary` on are padding of
        negligible probability (`models.layers.mask_logits`).
      target: ids [...] below `vocabulary`.
      label_smoothing: s, in [0, 1), a Python number.
      vocabulary: number of ids; unused without smoothing.

    Returns:
      Losses [...], in float32 at least.
    """
    return _cross_entropy(logits, target, label_smoothing, vocabulary)[0]


def _cross_entropy_gradient(smoothing: float, size: int, saved: tuple, g: PyTree):
    logits, target, total = saved
    ids = jnp.arange(logits.shape[-1])
    goal = (1 - smoothing) * (ids == target[..., None]) + (
        smoothing / size * (ids < size) if smoothing else 0
    )
    p = jnp.exp(logits.astype(total.dtype) - total[..., None])
    return (g[..., None] * (p - goal)).astype(logits.dtype), None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_gradient)

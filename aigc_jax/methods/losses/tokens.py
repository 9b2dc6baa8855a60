"""The cross entropy of tokens, without an array of all probabilities."""

from functools import partial

import jax
import jax.numpy as jnp

# -- tokens


def along(reduce, x):  # [..., V] -> [...]
    """A reduction over the last axis, at most 32 numbers at a time where that divides
    it: XLA on CPUs goes over what is longer twice.
    """
    while x.shape[-1] > 32 and (part := max(n for n in range(1, 33) if x.shape[-1] % n == 0)) > 1:
        x = reduce(x.reshape(*x.shape[:-1], part, -1), axis=-2)
    return reduce(x, axis=-1)


def in_chunks(score, x, target, size):  # [B, T, D], [B, T] -> [B, T]
    """score(x, target) of `size` positions after another; what it computes on the way,
    such as logits, is there for so many at once, forwards and backwards.
    """
    parts = lambda y: y.reshape(len(y), -1, size, *y.shape[2:]).swapaxes(0, 1)
    each = jax.lax.map(jax.checkpoint(lambda part: score(*part)), (parts(x), parts(target)))
    return each.swapaxes(0, 1).reshape(target.shape)


def _cross_entropy(logits, target, smoothing, size):
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    top = jax.lax.stop_gradient(along(jnp.max, x))
    total = top + jnp.log(along(jnp.sum, jnp.exp(x - top[..., None])))
    ids = jnp.arange(x.shape[-1])
    # The target's logit as a sum, which divides over devices; a look-up would not.
    value = total - along(jnp.sum, jnp.where(ids == target[..., None], x, 0))
    if smoothing:
        value = (1 - smoothing) * value + smoothing * (
            total - along(jnp.sum, jnp.where(ids < size, x, 0)) / size
        )
    return value, (logits, target, total)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def cross_entropy(logits, target, smoothing, size):  # [..., V], [...] -> [...]
    """-log softmax(logits)[target] in nats; with smoothing s against the distribution
    (1 - s) onehot + s / size over the first `size` ids (Szegedy et al. 2016, section
    7), whose least value is that distribution's entropy. Its gradient is
    softmax(logits) minus that distribution, computed from the logits in one pass.
    """
    return _cross_entropy(logits, target, smoothing, size)[0]


def _cross_entropy_gradient(smoothing, size, saved, g):
    logits, target, total = saved
    ids = jnp.arange(logits.shape[-1])
    goal = (1 - smoothing) * (ids == target[..., None]) + (
        smoothing / size * (ids < size) if smoothing else 0
    )
    p = jnp.exp(logits.astype(total.dtype) - total[..., None])
    return (g[..., None] * (p - goal)).astype(logits.dtype), None


cross_entropy.defvjp(_cross_entropy, _cross_entropy_gradient)

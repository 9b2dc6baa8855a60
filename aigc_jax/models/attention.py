"""Attention and what tells it where tokens stand: pure functions."""

import math

import jax
import jax.numpy as jnp


def sinusoidal(position, width):  # [T] -> [T, D]
    """sin(p / 10000^(2i/D)) and cos of the same, the sines first (Vaswani et al. 2017,
    section 3.5, but for the order of columns).
    """
    angle = position[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :width]


def rotary(x, position):  # [B, T, N, H], [T] -> [B, T, N, H]
    """Coordinates i and i + H/2 turned by the angle p / 10000^(2i/H) (Su et al. 2021,
    eq. 34): the product of a query and a key so turned depends on the difference of
    their positions alone.
    """
    half = x.shape[-1] // 2
    angle = position[:, None] * 10000.0 ** (-jnp.arange(half) / half)
    cos, sin = (f(angle)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def alibi_slopes(heads):  # -> [N]
    """2^(-8 i / N) for i = 1 .. N where N is a power of two; else those of the next
    lower power, and every other one of the next higher (Press et al. 2022, section 3
    and their code).
    """
    low = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * i / low) for i in range(1, low + 1)]
    slopes += [2 ** (-4 * i / low) for i in range(1, 2 * low, 2)]
    return jnp.array(slopes[:heads])


# [B, T, N, H], 2 x [B, S, K, H] -> [B, T, N, H]
def attention(q, k, v, bias=None, mask=None, causal=False):
    """softmax(q k^T / sqrt(H) + bias) v (Vaswani et al. 2017, eq. 1). cuDNN's fused
    kernel where it can be had; jax.nn's own code takes the softmax in float32 whatever
    the inputs, so that float64 is written out.
    """
    if q.dtype != jnp.float64:
        fused = (
            jax.default_backend() == "gpu"
            and q.dtype in (jnp.bfloat16, jnp.float16)
            and bias is None
        )
        return jax.nn.dot_product_attention(
            q, k, v, bias, mask, is_causal=causal, implementation="cudnn" if fused else None
        )
    seen = jnp.tril(jnp.ones(2 * (q.shape[1],), bool)) if causal else mask
    return attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), bias, seen)


def attend(q, k, v, bias=None, mask=None):  # [B, T, N, H], 2 x [B, K, S, H] -> [B, T, N, H]
    """The same of keys and values that lie head by head, as a cache keeps them: a token
    that is written reads all of them, and on CPUs a product over another order copies
    them first (docs/LOG.md).
    """
    b, t, heads, size = q.shape
    groups = q.reshape(b, t, k.shape[1], -1, size)
    kind = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("btkgh,bksh->bkgts", groups, k, preferred_element_type=kind).reshape(
        b, heads, t, -1
    ) / math.sqrt(size)
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(b, *groups.shape[2:4], t, -1)
    return jnp.einsum("bkgts,bksh->btkgh", weights, v).reshape(q.shape)

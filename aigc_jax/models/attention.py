"""Attention and position encodings, as pure functions."""

import math

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array


def sinusoidal_encoding(position: Array, width: int) -> Array:  # [T] -> [T, D]
    """Return sin(p / 10000^(2i/D)) and cos of the same angles, with the sines first
    (Vaswani et al. 2017, section 3.5, except for the order of the columns).
    """
    angle = position[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :width]


def rotary_encoding(x: Array, position: Array) -> Array:  # [B, T, N, H], [T] -> [B, T, N, H]
    """Rotate the coordinates i and i + H/2 by the angle p / 10000^(2i/H) (Su et al.
    2021, eq. 34): the product of a rotated query and a rotated key depends only on the
    difference of their positions.
    """
    half = x.shape[-1] // 2
    angle = position[:, None] * 10000.0 ** (-jnp.arange(half) / half)
    cos, sin = (f(angle)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def alibi_slopes(heads: int) -> Array:  # -> [N]
    """Return the slopes 2^(-8 i / N) for i = 1 .. N if N is a power of two; otherwise
    the slopes of the next lower power of two, then every other slope of the next higher
    (Press et al. 2022, section 3 and their code).
    """
    low = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * i / low) for i in range(1, low + 1)]
    slopes += [2 ** (-4 * i / low) for i in range(1, 2 * low, 2)]
    return jnp.array(slopes[:heads])


# [B, T, N, H], 2 x [B, S, K, H] -> [B, T, N, H]
def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    causal: bool = False,
) -> Array:
    """Return softmax(q k^T / sqrt(H) + bias) v (Vaswani et al. 2017, eq. 1).

    On GPUs, 16-bit inputs without a bias use cuDNN's fused kernel. float64 inputs use
    `attend`: `jax.nn.dot_product_attention` computes the softmax in float32 for every
    dtype.
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
    mask = jnp.tril(jnp.ones(2 * (q.shape[1],), bool)) if causal else mask
    return attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), bias, mask)


def attend(
    q: Array, k: Array, v: Array, bias: Array | None = None, mask: Array | None = None
) -> Array:  # [B, T, N, H], 2 x [B, K, S, H] -> [B, T, N, H]
    """Return `attention` for keys and values stored head by head, the order of a cache.

    Every generated token reads all keys and values; with another order of the axes a
    product on CPUs would copy them first (docs/LOG.md).
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

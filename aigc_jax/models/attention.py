"""Attention and position encodings, as pure functions."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array


def sinusoidal_encoding(position: Array, width: int) -> Array:  # [T] -> [T, D], first all sines
    """Return sin(p / 10000^(2i/D)) and cos of the same angles, with the sines first
    (Vaswani et al. 2017, section 3.5, except for the order of the columns).

    Args:
      position: numbers [T] of the positions, from 0.
      width: the number of columns D.
    """
    angle = position[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :width]


def apply_rotary_encoding(
    x: Array, position: Array
) -> Array:  # [B, T, N, H], [T] -> [B, T, N, H], with pairs (i, i + H / 2) rotated
    """Rotate the coordinates i and i + H/2 by the angle p / 10000^(2i/H) (Su et al.
    2021, eq. 34): the product of a rotated query and a rotated key depends only on the
    difference of their positions.

    Args:
      x: queries or keys [B, T, N, H], H even.
      position: numbers [T] of the positions, from 0.
    """
    half = x.shape[-1] // 2
    angle = position[:, None] * 10000.0 ** (-jnp.arange(half) / half)
    cos, sin = (f(angle)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def alibi_slopes(heads: int) -> Array:  # -> [heads], all > 0
    """Return the slopes 2^(-8 i / N) for i = 1 .. N if N is a power of two; otherwise
    the slopes of the next lower power of two, then every other slope of the next higher
    (Press et al. 2022, section 3 and their code).
    """
    low = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * i / low) for i in range(1, low + 1)]
    slopes += [2 ** (-4 * i / low) for i in range(1, 2 * low, 2)]
    return jnp.array(slopes[:heads])


def dot_product_attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    causal: bool = False,
) -> Array:  # [B, T, N, H], 2 x [B, S, K, H] -> [B, T, N, H]; mask: True attends
    """Return softmax(q k^T / sqrt(H) + bias) v (Vaswani et al. 2017, eq. 1).

    Without a bias and a mask, and where `suits_cudnn`, cuDNN's fused kernel computes
    it. float64 inputs use `attend_cache`: `jax.nn.dot_product_attention` computes the
    softmax in float32 for every dtype.

    Args:
      q: queries [B, T, N, H].
      k: keys [B, S, K, H]; N / K consecutive heads of queries share one.
      v: values [B, S, K, H].
      bias: added to the scores, broadcastable to [B, N, T, S]; None for none.
      mask: True where a query attends to a key, broadcastable to [B, N, T, S]; None:
        everywhere. Not together with `causal`.
      causal: whether query t attends to the keys 0 .. t only (T = S).
    """
    if q.dtype != jnp.float64:
        is_plain = bias is None and mask is None
        kernel: Any = "cudnn" if is_plain and suits_cudnn(q, k) else None
        return jax.nn.dot_product_attention(
            q, k, v, bias, mask, is_causal=causal, implementation=kernel
        )
    mask = jnp.tril(jnp.ones(2 * (q.shape[1],), bool)) if causal else mask
    return attend_cache(q, k.swapaxes(1, 2), v.swapaxes(1, 2), bias, mask)


def suits_cudnn(q: Array, k: Array) -> bool:
    """Return whether cuDNN's fused attention, forward and backward, takes these queries
    and keys, without a bias and a mask.

    It needs an NVIDIA GPU of the Ampere generation or later, 16-bit inputs, heads of a
    multiple of 8 up to 128 (256 from Hopper on), and even numbers of queries and keys:
    JAX refuses the gradient of others. Masks are left to XLA, since JAX passes them as
    biases of all positions, under vmap of all heads too, and so is the gradient of a
    bias. Arguments as of `dot_product_attention`.
    """
    if jax.default_backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    version = getattr(jax.devices()[0], "compute_capability", "")
    if not re.fullmatch(r"\d+\.\d+", version) or float(version) < 8:
        return False  # AMD's versions are no such numbers
    is_even = q.shape[1] % 2 == k.shape[1] % 2 == 0
    size, most = q.shape[-1], 256 if float(version) >= 9 else 128
    return is_even and size % 8 == 0 and size <= most


def attend_cache(
    q: Array, k: Array, v: Array, bias: Array | None = None, mask: Array | None = None
) -> Array:  # [B, T, N, H], 2 x [B, K, S, H] -> [B, T, N, H]; mask: True attends
    """Return `dot_product_attention` for keys and values stored head by head, the order
    of a cache.

    Every generated token reads all keys and values; with another order of the axes a
    product on CPUs would copy them first (docs/design/log.md).

    Args:
      q: queries [B, T, N, H].
      k: keys [B, K, S, H].
      v: values [B, K, S, H].
      bias: as in `dot_product_attention`.
      mask: as in `dot_product_attention`.
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

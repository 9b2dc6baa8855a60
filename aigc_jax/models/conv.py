"""Convolutions whose gradients are written by hand.

Why this file exists. XLA differentiates a convolution into convolutions with dilated inputs and with the batch contracted, which
on CPUs are slow by themselves (jax#23783, jax#31662: forward and backward of one 5x5 stride-2 transposed layer take 2,300 ms, as
here 165), pathological inside loops (jax#12868: a 3x3 weight gradient takes 25 ms under jit and 3,346 in `lax.scan`), and become
grouped convolutions where trials are vmapped over their kernels (jax#13800). When these are mended, `lax` can replace it.

Everything comes from one trilinear form over pictures x [B, H, W, C], kernels w [K, L, C, O] and outputs y [B, h, w, O],

    T(x, w, y) = sum  x[b, s i + k - p, c] w[k, c, o] y[b, i, o]        (and likewise along the other axis),

whose three partial gradients are `correlate` (by y: the convolution), `spread` (by x: the transposed convolution) and `match` (by w:
the gradient of the kernel). The derivatives of each are the other two, so that derivatives of any order stay among them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], tuple[int, int]]


def same_pads(size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding) -> Pads:
    """SAME, VALID or explicit padding of a convolution, as (before, after) along each axis."""
    if not isinstance(padding, str):
        return tuple(map(tuple, padding))
    return tuple(lax.padtype_to_pads(size, kernel, strides, padding))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def correlate(x, w, strides, pads):  # [B, H, W, C], [K, L, C, O] -> [B, h, w, O]
    """The convolution (without flipping the kernel): y[b, i, o] = sum x[b, s i + k - p, c] w[k, c, o]."""
    return lax.conv_general_dilated(x, w, strides, pads, dimension_numbers=NHWC)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def spread(y, w, size, strides, pads):  # [B, h, w, O], [K, L, C, O] -> [B, *size, C]
    """The transpose of `correlate` for pictures of `size`: x[b, s i + k - p, c] = sum w[k, c, o] y[b, i, o].

    Along one axis the outputs n = s a + r (before the padding p is cut off) of one phase r meet the taps k = s t + r alone:
    out[s a + r] = sum_t y[a - t] w[s t + r], an ordinary convolution of y. All phases are made by one convolution with s * s * C
    channels and interleaved ("depth to space"). Where pictures have so few channels that all taps of one output fit into its
    own channels (64 -> 1: 16 ms so, 3 ms otherwise), every output is one row of a matrix product, whose taps are added in place.
    """
    (s, t), (k, l, c, o) = strides, w.shape
    if k * l * c <= o:
        (top, _), (left, _), (h, v) = *pads, y.shape[1:3]
        parts = (y @ w.reshape(k * l * c, o).T).reshape(*y.shape[:3], k, l, c)
        ends = (top + size[0] - (s * (h - 1) + 1), left + size[1] - (t * (v - 1) + 1))  # past the last output, before taps

        def place(i, j):
            around = ((0, 0, 0), (i - top, ends[0] - i, s - 1), (j - left, ends[1] - j, t - 1), (0, 0, 0))
            return lax.pad(parts[:, :, :, i, j], jnp.zeros((), parts.dtype), around)

        return sum(place(i, j) for i in range(k) for j in range(l))
    taps = [-(-n // m) for n, m in zip((k, l), strides, strict=True)]
    w = jnp.pad(w, [(0, taps[0] * s - k), (0, taps[1] * t - l), (0, 0), (0, 0)])
    # [taps, s, taps, t, C, O] -> kernel [taps reversed, taps reversed, O, s t C]
    kernel = w.reshape(taps[0], s, taps[1], t, c, o)[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4).reshape(*taps, o, s * t * c)
    first = [lo // m for (lo, _), m in zip(pads, strides, strict=True)]  # a of the first output that is kept
    last = [-(-(lo + n) // m) for (lo, _), n, m in zip(pads, size, strides, strict=True)]  # past the last
    around = [(T - 1 - f, e - h) for T, f, e, h in zip(taps, first, last, y.shape[1:3], strict=True)]
    out = lax.conv_general_dilated(y, kernel, (1, 1), around, dimension_numbers=NHWC)
    b, rows, columns, _ = out.shape
    out = out.reshape(b, rows, columns, s, t, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * s, columns * t, c)
    starts = [lo - f * m for (lo, _), f, m in zip(pads, first, strides, strict=True)]
    return out[:, starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def match(x, y, window, strides, pads):  # [B, H, W, C], [B, h, w, O] -> [*window, C, O]
    """How kernels of `window` answer to pictures and outputs: w[k, c, o] = sum_{b, i} x[b, s i + k - p, c] y[b, i, o].

    An ordinary convolution of x as [C, H, W, B] with y as [h, w, B, O], dilated by the stride.
    """
    sides = zip(window, strides, pads, x.shape[1:3], y.shape[1:3], strict=True)
    around = [(lo, k - 1 - n - lo + m * (h - 1) + 1) for k, m, (lo, _), n, h in sides]
    out = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), (1, 1), around, rhs_dilation=strides, dimension_numbers=NHWC
    )
    return out.transpose(1, 2, 0, 3)


correlate.defvjp(
    lambda x, w, strides, pads: (correlate(x, w, strides, pads), (x, w)),
    lambda strides, pads, saved, y: (
        spread(y, saved[1], saved[0].shape[1:3], strides, pads),
        match(saved[0], y, saved[1].shape[:2], strides, pads),
    ),
)
spread.defvjp(
    lambda y, w, size, strides, pads: (spread(y, w, size, strides, pads), (y, w)),
    lambda size, strides, pads, saved, x: (
        correlate(x, saved[1], strides, pads),
        match(x, saved[0], saved[1].shape[:2], strides, pads),
    ),
)
match.defvjp(
    lambda x, y, window, strides, pads: (match(x, y, window, strides, pads), (x, y)),
    lambda window, strides, pads, saved, w: (
        spread(saved[1], w, saved[0].shape[1:3], strides, pads),
        correlate(saved[0], w, strides, pads),
    ),
)


def conv(x, kernel, strides=(1, 1), padding="SAME"):  # [B, H, W, C], [K, L, C, O] -> [B, h, w, O]
    """`lax.conv_general_dilated` in NHWC and HWIO, padding SAME, VALID or explicit."""
    strides = tuple(strides)
    return correlate(x, kernel, strides, same_pads(x.shape[1:3], kernel.shape[:2], strides, padding))


def conv_transpose(x, kernel, strides=(1, 1), padding="SAME"):  # [B, h, w, C], [K, L, C, O] -> [B, H, W, O]
    """`lax.conv_transpose`: SAME gives s h, VALID s (h - 1) + K at the least s h; the kernel is not flipped."""
    strides = tuple(strides)
    size, pads = [], []
    for h, k, s in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True):
        total = k + s - 2 if padding == "SAME" else k + s - 2 + max(k - s, 0)
        before = (k - 1 if s > k - 1 else -(-total // 2)) if padding == "SAME" else k - 1
        size.append(s * (h - 1) + total - k + 2)
        pads.append((k - 1 - before, k - 1 - (total - before)))  # of the convolution whose transpose this is
    return spread(x, kernel[::-1, ::-1].swapaxes(2, 3), tuple(size), strides, tuple(pads))


class Conv(nn.Module):
    """`flax.linen.Conv` in two dimensions: the same parameters, initialisers and results."""

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: Any = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.linear.default_kernel_init
    bias_init: Any = nn.initializers.zeros_init()
    apply_to = staticmethod(conv)

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, h, w, features]
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        strides = (self.strides,) * 2 if isinstance(self.strides, int) else tuple(self.strides)
        y = self.apply_to(x, kernel, strides, self.padding)
        return y if bias is None else y + bias


class ConvTranspose(Conv):
    """`flax.linen.ConvTranspose` in two dimensions: the same parameters, initialisers and results."""

    apply_to = staticmethod(conv_transpose)  # [B, h, w, C] -> [B, H, W, features]

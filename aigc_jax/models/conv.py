"""Convolutions whose gradients are written by hand.

Why this file exists. XLA differentiates a convolution into convolutions with dilated
inputs and with the batch contracted. On CPUs these are slow (jax#23783, jax#31662:
forward and backward of one 5x5 stride-2 transposed layer take 2,300 ms, and 165 ms
with this file), pathological inside loops (jax#12868: a 3x3 weight gradient takes 25 ms
under jit and 3,346 ms in `lax.scan`), and become grouped convolutions where trials are
vmapped over their kernels (jax#13800). When these are fixed, `lax` can replace this
file.

All functions follow from one trilinear form over images x [B, H, W, C], kernels w [K,
L, C, O] and outputs y [B, h, w, O],

    T(x, w, y) = sum  x[b, s i + k - p, c] w[k, c, o] y[b, i, o]        (and likewise
                      along the other axis),

whose three partial gradients are `correlate` (by y: the convolution), `conv_input_grad`
(by x: the transposed convolution) and `conv_kernel_grad` (by w: the gradient of the
kernel). The derivatives of each are the other two, so that derivatives of any order
use these three functions only. Their arguments: `strides` (s, t) of rows and columns;
`pads` ((p, after), (left, right)), the zeros around x; `image_size` (H, W) of the
result x; `kernel_size` (K, L) of the result w.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from aigc_jax.core.method import Array
from aigc_jax.models.reductions import broadcast_leading

NHWC = ("NHWC", "HWIO", "NHWC")
Pads = tuple[tuple[int, int], tuple[int, int]]
Padding = str | int | Sequence[int | tuple[int, int]]  # as in `explicit_pads`


def explicit_pads(
    padding: Padding,
) -> Pads | None:  # ((top, bottom), (left, right)); None for "SAME" and "VALID"
    """Return explicit padding as (before, after) of each axis; None for SAME and VALID.

    Args:
      padding: "SAME", "VALID", or as in Flax: a number, a number per axis, or (before,
        after) per axis.

    Raises:
      ValueError: for Flax's other names, such as CIRCULAR.
    """
    pads = nn.linear.canonicalize_padding(padding, 2)
    if pads not in ("SAME", "VALID") and isinstance(pads, str):
        raise ValueError(f"padding = {padding!r} is none of 'SAME', 'VALID' and explicit numbers")
    if isinstance(pads, str):
        return None
    (above, below), (left, right) = pads
    return (above, below), (left, right)


def conv_pads(
    image_size: Sequence[int],
    kernel_size: Sequence[int],
    strides: Sequence[int],
    padding: Padding,
) -> Pads:  # ((top, bottom), (left, right))
    """Return the padding of a convolution as (before, after) of each axis.

    Args:
      image_size: (H, W) of the images.
      kernel_size: (K, L) of the kernel.
      strides: of rows and columns.
      padding: as in `explicit_pads`.
    """
    if pads := explicit_pads(padding):
        return pads
    rows, columns = lax.padtype_to_pads(image_size, kernel_size, strides, str(padding))
    return rows, columns


def transpose_pads(
    kernel_size: int, stride: int, padding: str
) -> tuple[int, int]:  # (before, after) of one axis of the dilated input
    """Return the padding (before, after) of one axis of the dilated input in
    `lax.conv_transpose`.

    Args:
      kernel_size: of the kernel along the axis.
      stride: of the axis.
      padding: "SAME" or "VALID".
    """
    if padding == "VALID":
        return kernel_size - 1, stride - 1 + max(kernel_size - stride, 0)
    total = kernel_size + stride - 2
    before = kernel_size - 1 if stride > kernel_size - 1 else -(-total // 2)
    return before, total - before


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def correlate(
    x: Array, w: Array, strides: tuple[int, ...], pads: Pads
) -> Array:  # [B, H, W, C], [K, L, C, O] -> [B, h, w, O]
    """Return the convolution without flipping the kernel: y[b, i, o] = sum x[b, s i + k
    - p, c] w[k, c, o].
    """
    return lax.conv_general_dilated(x, w, strides, pads, dimension_numbers=NHWC)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_input_grad(
    y: Array, w: Array, image_size: tuple[int, ...], strides: tuple[int, ...], pads: Pads
) -> Array:  # [B, h, w, O], [K, L, C, O] -> [B, *image_size, C]
    """Return the transpose of `correlate` for images of `image_size`: x[b, s i + k - p,
    c] = sum w[k, c, o] y[b, i, o].

    Rows: the output rows s a + q of one phase q depend only on the taps s n + r with r
    = (q + p) mod s. Each phase is one ordinary convolution of y, and the rows of the
    phases are interleaved. Columns: t neighbouring columns are computed as the channels
    of one column ("depth to space"), for which the kernel is padded with zeros to a
    multiple of t: a 5x5 kernel of stride 2 does 30/25 of the necessary work. Both axes
    as channels would do 36/25; neither would require interleaving single columns, which
    costs more than the zeros. Where L is a multiple of t, the columns that the same
    pixels of y contribute to are computed together, without zeros: the first group of
    them may begin left of the image.

    If all K L C taps of a position of y number at most its O channels (64 -> 1: 16 ms
    as above, 3 ms this way), one matrix product computes the taps of every position,
    and the taps are added at their positions.
    """
    (s, t), (k, l, c, o) = strides, w.shape
    (top, _), (left, _) = pads
    h, v = y.shape[1:3]
    if k * l * c <= o:
        parts = (y @ w.reshape(k * l * c, o).T).reshape(*y.shape[:3], k, l, c)
        # Padding after the last output, before the offset of the tap is subtracted.
        ends = (top + image_size[0] - (s * (h - 1) + 1), left + image_size[1] - (t * (v - 1) + 1))

        def pad_tap(i, j):
            padding = (
                (0, 0, 0),
                (i - top, ends[0] - i, s - 1),
                (j - left, ends[1] - j, t - 1),
                (0, 0, 0),
            )
            return lax.pad(parts[:, :, :, i, j], jnp.zeros((), parts.dtype), padding)

        return sum(pad_tap(i, j) for i in range(k) for j in range(l))
    # Columns of the first group left of the image. None where the kernel needs zeros in
    # any case: these then come before the taps.
    skipped = left % t if l % t == 0 else 0
    left, width = left - skipped, image_size[1] + skipped
    before = -left % t
    w = jnp.pad(w, ((0, max(0, s - k)), (before, -(before + l) % t), (0, 0), (0, 0)))
    taps = w.shape[1] // t
    w = w.reshape(-1, taps, t, c, o).transpose(0, 1, 4, 2, 3).reshape(-1, taps, o, t * c)
    rows, columns, first = -(-image_size[0] // s), -(-width // t), (left + before) // t
    sides = (taps - 1 - first, first + columns - v)

    def phase(q):
        kernel = w[(q + top) % s :: s][::-1, ::-1]
        above = len(kernel) - 1 - (q + top) // s
        ends = (above, rows + len(kernel) - 1 - h - above)
        return lax.conv_general_dilated(y, kernel, (1, 1), (ends, sides), dimension_numbers=NHWC)

    out = jnp.stack([phase(q) for q in range(s)], axis=2).reshape(-1, rows * s, columns * t, c)
    return out[:, : image_size[0], skipped:width]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_kernel_grad(
    x: Array, y: Array, kernel_size: tuple[int, ...], strides: tuple[int, ...], pads: Pads
) -> Array:  # [B, H, W, C], [B, h, w, O] -> [*kernel_size, C, O]
    """Return the gradient of kernels of this size: w[k, c, o] = sum_{b, i} x[b, s i + k
    - p, c] y[b, i, o].

    This is an ordinary convolution of x as [C, H, W, B] with y as [h, w, B, O], dilated
    by the stride.
    """
    sides = zip(kernel_size, strides, pads, x.shape[1:3], y.shape[1:3], strict=True)
    padding = [(lo, k - 1 - n - lo + m * (h - 1) + 1) for k, m, (lo, _), n, h in sides]
    out = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        y.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=strides,
        dimension_numbers=NHWC,
    )
    return out.transpose(1, 2, 0, 3)


correlate.defvjp(
    lambda x, w, strides, pads: (correlate(x, w, strides, pads), (x, w)),
    lambda strides, pads, saved, y: (
        conv_input_grad(y, saved[1], saved[0].shape[1:3], strides, pads),
        conv_kernel_grad(saved[0], y, saved[1].shape[:2], strides, pads),
    ),
)
conv_input_grad.defvjp(
    lambda y, w, image_size, strides, pads: (
        conv_input_grad(y, w, image_size, strides, pads),
        (y, w),
    ),
    lambda image_size, strides, pads, saved, x: (
        correlate(x, saved[1], strides, pads),
        conv_kernel_grad(x, saved[0], saved[1].shape[:2], strides, pads),
    ),
)
conv_kernel_grad.defvjp(
    lambda x, y, kernel_size, strides, pads: (
        conv_kernel_grad(x, y, kernel_size, strides, pads),
        (x, y),
    ),
    lambda kernel_size, strides, pads, saved, w: (
        conv_input_grad(saved[1], w, saved[0].shape[1:3], strides, pads),
        correlate(saved[0], w, strides, pads),
    ),
)


def conv(
    x: Array, kernel: Array, strides: tuple[int, ...] = (1, 1), padding: Padding = "SAME"
) -> Array:  # [B, H, W, C], [K, L, C, O] -> [B, h, w, O]
    """Return `lax.conv_general_dilated` in NHWC and HWIO.

    Args:
      x: images [B, H, W, C].
      kernel: [K, L, C, O].
      strides: of rows and columns.
      padding: as in `explicit_pads`.
    """
    strides = tuple(strides)
    return correlate(
        x, kernel, strides, conv_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    )


def conv_transpose(
    x: Array, kernel: Array, strides: tuple[int, ...] = (1, 1), padding: Padding = "SAME"
) -> Array:  # [B, h, w, C], [K, L, C, O] -> [B, H, W, O]
    """Return `lax.conv_transpose`, which does not flip the kernel.

    The size of the output is s h for SAME, max(s (h - 1) + K, s h) for VALID, and
    s (h - 1) + p + q - K + 2 for explicit padding (p, q) of the dilated input.

    Args:
      x: images [B, h, w, C].
      kernel: [K, L, C, O].
      strides: of rows and columns, which multiply the size.
      padding: as in `explicit_pads`, of the dilated input.
    """
    strides = tuple(strides)
    input_pads = explicit_pads(padding) or [
        transpose_pads(k, s, str(padding)) for k, s in zip(kernel.shape[:2], strides, strict=True)
    ]
    size, pads = [], []
    for h, k, s, (before, after) in zip(
        x.shape[1:3], kernel.shape[:2], strides, input_pads, strict=True
    ):
        size.append(s * (h - 1) + before + after - k + 2)
        pads.append((k - 1 - before, k - 1 - after))  # of the convolution that is transposed
    return conv_input_grad(x, kernel[::-1, ::-1].swapaxes(2, 3), tuple(size), strides, tuple(pads))


def sum_shifted_kernels(
    kernel: Array, strides: Sequence[int]
) -> Array:  # [K, L, C, O] -> [K + s - 1, L + t - 1, C, O]
    """Return the sum of a kernel at the s t positions of a block of strides (s, t)."""
    s, t = strides
    shifts = [((i, s - 1 - i), (j, t - 1 - j)) for i in range(s) for j in range(t)]
    return jnp.sum(jnp.stack([jnp.pad(kernel, (*pads, (0, 0), (0, 0))) for pads in shifts]), 0)


def conv_mean_pool(
    x: Array, kernel: Array, strides: tuple[int, ...] = (2, 2), padding: Padding = "SAME"
) -> Array:  # [B, H, W, C], [K, L, C, O] -> [B, H / s, W / t, O]
    """Return the means over blocks of a convolution of stride 1, by one convolution.

    Means and convolution are linear: together they are the convolution of the strides
    with the mean of the shifted kernels, which needs (K + s - 1)(L + t - 1) products a
    block instead of K L s t: 16 instead of 36 for 3x3 kernels and blocks of 2x2.

    Args:
      x: images [B, H, W, C].
      kernel: [K, L, C, O].
      strides: the size (s, t) of the blocks; incomplete blocks are left out.
      padding: of the convolution of stride 1, as in `explicit_pads`.
    """
    pads = conv_pads(x.shape[1:3], kernel.shape[:2], (1, 1), padding)
    mean = sum_shifted_kernels(kernel, strides) / (strides[0] * strides[1])
    return correlate(x, mean, tuple(strides), pads)


def upsample_conv(
    x: Array, kernel: Array, strides: tuple[int, ...] = (2, 2), padding: Padding = "SAME"
) -> Array:  # [B, h, w, C], [K, L, C, O] -> [B, s h, t w, O]
    """Return the convolution, of stride 1, of images enlarged by repeating every pixel
    s x t times, by one transposed convolution with the sum of the shifted kernels (see
    `conv_mean_pool`).

    Args:
      x: images [B, h, w, C].
      kernel: [K, L, C, O].
      strides: how often (s, t) a pixel is repeated along each axis.
      padding: of the convolution, as in `explicit_pads`.
    """
    large = [s * n for s, n in zip(strides, x.shape[1:3], strict=True)]
    pads = conv_pads(large, kernel.shape[:2], (1, 1), padding)
    # The sum is s - 1 rows and t - 1 columns larger than the kernel.
    input_pads = [(a + s - 1, b + s - 1) for s, (a, b) in zip(strides, pads, strict=True)]
    return conv_transpose(x, sum_shifted_kernels(kernel, strides), strides, input_pads)


class Conv(nn.Module):
    """`flax.linen.Conv` in two dimensions, with a subset of its fields: the same
    parameters, initializers and results. `apply_to` may be another function of the same
    arguments, such as `conv_mean_pool`.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    dtype: Any = None  # of the computation; None: promoted from x and the parameters
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.linear.default_kernel_init
    bias_init: Any = nn.initializers.zeros_init()
    apply_to: Callable[..., Array] = conv  # (x, kernel, strides, padding) -> [B, h, w, O]

    def adjust_kernel(
        self, kernel: Array, train: bool
    ) -> Array:  # [K, L, C, O] -> [K, L, C, O], unchanged here
        """Return the kernel of the convolution; subclasses may override it, and update
        statistics if `train`.
        """
        return kernel

    @nn.compact
    def __call__(
        self, x: Array, train: bool = False
    ) -> Array:  # [B, H, W, C] -> [B, h, w, features]
        """Return the convolution of x with the adjusted kernel, transposed for
        ConvTranspose, plus the bias if `use_bias`.
        """
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (*self.kernel_size, x.shape[-1], self.features),
            self.param_dtype,
        )
        kernel = self.adjust_kernel(kernel, train)
        bias = (
            self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            if self.use_bias
            else None
        )
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        strides = (self.strides,) * 2 if isinstance(self.strides, int) else tuple(self.strides)
        y = self.apply_to(x, kernel, strides, self.padding)
        return y if bias is None else y + broadcast_leading(bias, y.shape)


class ConvTranspose(Conv):
    """`flax.linen.ConvTranspose` in two dimensions, with transpose_kernel = False and a
    subset of its fields: the same parameters, initializers and results.
    """

    apply_to: Callable[..., Array] = conv_transpose  # [B, h, w, C] -> [B, H, W, features]

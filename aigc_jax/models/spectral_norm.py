"""Spectral normalization: layers whose kernel is divided by its largest singular value,
so that the norm of the kernel as a matrix is 1 (Miyato et al. 2018).

`apply_dense` and `apply_conv` apply the layers of networks with the option `spectral`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models import conv as convolutions
from aigc_jax.models import reductions


def unit_vector(x: Array) -> Array:  # [D] -> [D] of length 1, or 0 for x = 0
    """Return x divided by its length, finite for x = 0."""
    return x / (jnp.linalg.norm(x) + 1e-12)


def divide_by_sigma(
    layer: nn.Module, kernel: Array, train: bool
) -> Array:  # [..., C, O] -> [..., C, O], with spectral norm 1
    """Return W / sigma with sigma = v^T W u, where W is the kernel as a matrix [.., O]
    and v, u approximate its first singular vectors (Miyato et al. 2018, algorithm 1).

    Each training call runs one power iteration from the result of the previous one. The
    vectors have no gradient; u [O] is stored in the collection "spectral".

    Args:
      layer: the layer whose __call__ is running, which stores u.
      kernel: [..., C, O].
      train: whether the power iteration's result replaces u; not in `init`.
    """
    w = kernel.reshape(-1, kernel.shape[-1])
    u = layer.variable(
        "spectral",
        "u",
        lambda: unit_vector(jax.random.normal(layer.make_rng("params"), w.shape[-1:], w.dtype)),
    )
    v = unit_vector(w @ u.value)
    new = unit_vector(v @ w)
    v, new = jax.lax.stop_gradient((v, new))
    if train and not layer.is_initializing():
        u.value = new
    return kernel / (v @ w @ new)


class SpectralDense(reductions.Dense):
    """`reductions.Dense` with its kernel divided by its largest singular value."""

    adjust_kernel = divide_by_sigma


class SpectralConv(convolutions.Conv):
    """`conv.Conv` with its kernel divided by its largest singular value."""

    adjust_kernel = divide_by_sigma


class SpectralConvTranspose(convolutions.ConvTranspose):
    """`conv.ConvTranspose` with its kernel divided by its largest singular value."""

    adjust_kernel = divide_by_sigma


def apply_dense(
    net: nn.Module, x: Array, features: int, train: bool, **layer_fields: Any
) -> Array:  # [B, D] -> [B, features]
    """Apply a dense layer as a submodule of the network whose __call__ is running, with
    spectral normalization if net.spectral is true.

    Args:
      net: the network, with the fields spectral, dtype and param_dtype.
      x: [B, D].
      features: number of outputs.
      train: whether spectral normalization updates its vectors.
      **layer_fields: further fields of the layer, such as use_bias, kernel_init or
        name.
    """
    dtype_fields = dict(dtype=net.dtype, param_dtype=net.param_dtype)
    return (
        SpectralDense(features, **layer_fields, **dtype_fields)(x, train)
        if net.spectral
        else nn.Dense(features, **layer_fields, **dtype_fields)(x)
    )


def apply_conv(
    net: nn.Module,
    x: Array,
    features: int,
    train: bool,
    transpose: bool = False,
    **layer_fields: Any,
) -> Array:  # [B, H, W, C] -> [B, h, w, features]
    """Apply a convolution as a submodule of the network whose __call__ is running, with
    spectral normalization if net.spectral is true.

    Args:
      net: the network, with the fields spectral, dtype and param_dtype.
      x: [B, H, W, C].
      features: number of output channels.
      train: whether spectral normalization updates its vectors.
      transpose: whether the convolution is transposed, so that strides enlarge images.
      **layer_fields: further fields of `conv.Conv`, such as kernel_size (required) or
        strides.
    """
    plain, normal = (
        (convolutions.ConvTranspose, SpectralConvTranspose)
        if transpose
        else (convolutions.Conv, SpectralConv)
    )
    return (normal if net.spectral else plain)(
        features, dtype=net.dtype, param_dtype=net.param_dtype, **layer_fields
    )(x, train)

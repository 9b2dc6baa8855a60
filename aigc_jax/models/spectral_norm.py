"""Spectral normalization: layers whose kernel is divided by its largest singular value,
so that the norm of the kernel as a matrix is 1 (Miyato et al. 2018).

`make_dense` and `make_conv` apply the layers of networks with the option `spectral`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.models import conv as convolutions
from aigc_jax.models import reductions


def unit_vector(x: Array) -> Array:  # [D] -> [D]
    """Return x divided by its length, finite for x = 0."""
    return x / (jnp.linalg.norm(x) + 1e-12)


def normalize_kernel(layer, kernel: Array, train: bool) -> Array:  # [..., C, O] -> [..., C, O]
    """Return W / sigma with sigma = v^T W u, where W is the kernel as a matrix [.., O]
    and v, u approximate its first singular vectors (Miyato et al. 2018, algorithm 1).

    Each training call runs one power iteration from the result of the previous one. The
    vectors have no gradient; u [O] is stored in the collection "spectral".
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

    adjust = normalize_kernel


class SpectralConv(convolutions.Conv):
    """`conv.Conv` with its kernel divided by its largest singular value."""

    adjust = normalize_kernel


class SpectralConvTranspose(convolutions.ConvTranspose):
    """`conv.ConvTranspose` with its kernel divided by its largest singular value."""

    adjust = normalize_kernel


def make_dense(
    net: nn.Module, x: Array, features: int, train: bool, **more
) -> Array:  # [B, D] -> [B, features]
    """Apply a dense layer as a submodule of the network whose __call__ is running, with
    spectral normalization if net.spectral is true.
    """
    types = dict(dtype=net.dtype, param_dtype=net.param_dtype)
    return (
        SpectralDense(features, **more, **types)(x, train)
        if net.spectral
        else nn.Dense(features, **more, **types)(x)
    )


def make_conv(
    net: nn.Module, x: Array, features: int, train: bool, transpose: bool = False, **more
) -> Array:  # [B, H, W, C] -> [B, h, w, features]
    """Apply a convolution as a submodule of the network whose __call__ is running, with
    spectral normalization if net.spectral is true.
    """
    plain, normal = (
        (convolutions.ConvTranspose, SpectralConvTranspose)
        if transpose
        else (convolutions.Conv, SpectralConv)
    )
    return (normal if net.spectral else plain)(
        features, dtype=net.dtype, param_dtype=net.param_dtype, **more
    )(x, train)

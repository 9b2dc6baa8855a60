"""Spectral normalization: layers whose kernel is divided by its largest singular value,
so that none stretches its input (Miyato et al. 2018).

`dense` and `conv` are the layers of networks that can be told to be so normalized.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.models import conv as convolutions
from aigc_jax.models import reductions


def unit(x):  # [D] -> [D]
    """Return x divided by its length, finite for x = 0."""
    return x / (jnp.linalg.norm(x) + 1e-12)


def normalized(layer, kernel, train):  # [..., C, O] -> [..., C, O]
    """W / sigma, sigma = v^T W u with W as a matrix [.., O] and v, u its first singular
    vectors as far as power iteration has come: one round a training call from where the
    last one ended (Miyato et al. 2018, algorithm 1). They have no gradient; u [O] is
    kept in the collection "spectral".
    """
    w = kernel.reshape(-1, kernel.shape[-1])
    u = layer.variable(
        "spectral",
        "u",
        lambda: unit(jax.random.normal(layer.make_rng("params"), w.shape[-1:], w.dtype)),
    )
    v = unit(w @ u.value)
    new = unit(v @ w)
    v, new = jax.lax.stop_gradient((v, new))
    if train and not layer.is_initializing():
        u.value = new
    return kernel / (v @ w @ new)


class SpectralDense(reductions.Dense):
    """`reductions.Dense` with its kernel divided by its largest singular value."""

    adjust = normalized


class SpectralConv(convolutions.Conv):
    """`conv.Conv` with its kernel divided by its largest singular value."""

    adjust = normalized


class SpectralConvTranspose(convolutions.ConvTranspose):
    """`conv.ConvTranspose` with its kernel divided by its largest singular value."""

    adjust = normalized


def dense(net, x, features, train, **more):  # [B, D] -> [B, features]
    """A dense layer of the network whose __call__ this is in, normalized if
    net.spectral says so.
    """
    types = dict(dtype=net.dtype, param_dtype=net.param_dtype)
    return (
        SpectralDense(features, **more, **types)(x, train)
        if net.spectral
        else nn.Dense(features, **more, **types)(x)
    )


def conv(net, x, features, train, transpose=False, **more):  # [B, H, W, C] -> [B, h, w, features]
    """Likewise a convolution."""
    plain, normal = (
        (convolutions.ConvTranspose, SpectralConvTranspose)
        if transpose
        else (convolutions.Conv, SpectralConv)
    )
    return (normal if net.spectral else plain)(
        features, dtype=net.dtype, param_dtype=net.param_dtype, **more
    )(x, train)

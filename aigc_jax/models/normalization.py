"""Batch and layer normalization, with gradients written by hand."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core import axes
from aigc_jax.core.method import Array
from aigc_jax.models.reductions import broadcast_leading, sum_leading, sum_within


def _normalize(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[tuple, tuple]:
    n = x.size // x.shape[-1]
    center = axes.average_over_devices(sum_leading(x) / n)
    var = axes.average_over_devices(sum_within((x - broadcast_leading(center, x.shape)) ** 2) / n)
    sigma = jnp.sqrt(var + epsilon)
    # The quotient is the value that XLA stores: it does not recompute divisions, but
    # would recompute a final product, with strided access, in every transpose that the
    # gradient of a convolution needs.
    u = (x - broadcast_leading(center, x.shape)) / broadcast_leading(sigma, x.shape)
    y = u * broadcast_leading(scale, x.shape) + broadcast_leading(bias, x.shape)
    return (y, center, var), (u, scale, sigma)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_channels(
    x: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, Array, Array]:  # [..., C], [C], [C] -> [..., C], [C] mean, [C] variance
    """Return u scale + bias with u = (x - mean) / sigma and sigma^2 = variance +
    epsilon, and the mean and the (biased) variance.

    For a gradient g of the first result, those of bias, scale and x are sum(g),
    sum(g u) and scale (g - mean(g) - u mean(g u)) / sigma: two sums, and two passes
    over x in each direction, in which XLA fuses everything else.

    Args:
      x: [..., C]; moments are over all axes but the last.
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
    """
    return _normalize(x, scale, bias, epsilon)[0]


def _gradients(epsilon: float, saved: tuple, grads: tuple) -> tuple[Array, Array, Array]:
    (u, scale, sigma), (g, g_center, g_var) = saved, grads
    n, spread = g.size // g.shape[-1], lambda b: broadcast_leading(b, g.shape)
    g_bias, g_scale = sum_leading(g), sum_within(g * u)
    # The gradient of x is (g scale - offset - u slope) / sigma.
    offset = axes.average_over_devices((scale * g_bias - sigma * g_center) / n)
    slope = axes.average_over_devices((scale * g_scale - 2 * sigma**2 * g_var) / n)
    return (
        (g * spread(scale) - spread(offset) - u * spread(slope)) / spread(sigma),
        g_scale,
        g_bias,
    )


normalize_channels.defvjp(_normalize, _gradients)


class BatchNorm(nn.Module):
    """Batch normalization: (x - mean) / sqrt(variance + epsilon) * scale + bias (Ioffe
    & Szegedy 2015, algorithms 1 and 2).

    The moments are those of the batch over all axes but the last in training, and
    running averages otherwise. Parameters and statistics are those of
    `flax.linen.BatchNorm`: running = momentum * running + (1 - momentum) * batch, from
    mean 0 and (biased) variance 1.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:  # [..., C] -> [..., C]
        """Return x normalized. With `train`, except in `init`, update the collection
        "batch_stats".
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype),
            "var": self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype),
        }
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # for the moments
        if train:
            y, *moments = normalize_channels(
                x, scale.astype(x.dtype), bias.astype(x.dtype), self.epsilon
            )
            if not self.is_initializing():
                for name, value in zip(running, jax.lax.stop_gradient(moments), strict=True):
                    running[name].value = (
                        self.momentum * running[name].value + (1 - self.momentum) * value
                    ).astype(self.param_dtype)
        else:
            u = (x - running["mean"].value) / jnp.sqrt(running["var"].value + self.epsilon)
            y = u * broadcast_leading(scale, x.shape) + broadcast_leading(bias, x.shape)
        return y.astype(self.dtype)


# -- over the last axis, separately for each row


def row_mean(x: Array) -> Array:  # [..., C] -> [..., 1], over the last axis
    """Return the mean over the last axis, as a product with a column: XLA would compute
    a mean of more than 32 numbers in two passes.
    """
    return (x @ jnp.full(x.shape[-1], 1 / x.shape[-1], x.dtype))[..., None]


def _standardize_rows(x: Array, epsilon: float, centred: bool) -> tuple[Array, tuple[Array, Array]]:
    x = x - row_mean(x) if centred else x
    sigma = jnp.sqrt(row_mean(x * x) + epsilon)
    standard = x / sigma
    return standard, (standard, sigma)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def standardize_rows(
    x: Array, epsilon: float, centred: bool
) -> Array:  # [..., C] -> [..., C], over the last axis
    """Return u = (x - m) / sigma with sigma^2 = mean((x - m)^2) + epsilon and m =
    mean(x), or m = 0 unless `centred`.

    The gradient is (g - mean(g) - u mean(g u)) / sigma, without mean(g) unless
    `centred`.

    Args:
      x: rows [..., C].
      epsilon: added to the mean square, for rows of equal values.
      centred: whether the mean of a row is subtracted.
    """
    return _standardize_rows(x, epsilon, centred)[0]


def _gradient_rows(epsilon: float, centred: bool, saved: tuple, g: Array) -> tuple[Array]:
    standard, sigma = saved
    g = g - standard * row_mean(g * standard) - (row_mean(g) if centred else 0)
    return (g / sigma,)


standardize_rows.defvjp(_standardize_rows, _gradient_rows)


class LayerNorm(nn.Module):
    """Layer normalization, u * scale + bias with u of `standardize_rows` (Ba et al.
    2016); without centring and bias RMSNorm (Zhang & Sennrich 2019).

    The parameters are those of `flax.linen.LayerNorm` and `flax.linen.RMSNorm`.
    """

    centred: bool = True
    use_bias: bool = True
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [..., C] -> [..., C]
        """Return x with every row [C] normalized; the moments are in float32."""
        shape = x.shape[-1:]
        u = standardize_rows(
            x.astype(jnp.promote_types(x.dtype, jnp.float32)), self.epsilon, self.centred
        )
        u = u * broadcast_leading(
            self.param("scale", nn.initializers.ones, shape, self.param_dtype), u.shape
        )
        if self.use_bias:
            u = u + broadcast_leading(
                self.param("bias", nn.initializers.zeros, shape, self.param_dtype), u.shape
            )
        return u.astype(self.dtype)

"""Batch and layer normalization, with gradients written by hand."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core import axes
from aigc_jax.models.reductions import over, total


def moments(x):  # [..., C] -> [C], [C]
    """Mean and (biased) variance over all axes but the last."""
    n = x.size // x.shape[-1]
    center = axes.mean(total(x) / n)
    return center, axes.mean(total((x - over(center, x.shape)) ** 2) / n)


def _standardize(x, epsilon):
    center, var = moments(x)
    sigma = jnp.sqrt(var + epsilon)
    standard = (x - over(center, x.shape)) / over(sigma, x.shape)
    return standard, (standard, sigma)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardize(x, epsilon):  # [..., C] -> [..., C]
    """u = (x - mean) / sigma, sigma^2 = variance + epsilon, with the gradient dx = (g -
    mean(g) - u mean(g u)) / sigma.

    Both end in a division, which XLA does not compute twice: what ended in a product
    would be computed again, at a stride, by every transpose that a convolution's
    gradient needs.
    """
    return _standardize(x, epsilon)[0]


def _gradient(epsilon, saved, g):
    (standard, sigma), n = saved, g.size // g.shape[-1]
    means = over(axes.mean(total(g) / n), g.shape) + standard * over(
        axes.mean(total(g * standard) / n), g.shape
    )
    return ((g - means) / over(sigma, g.shape),)


standardize.defvjp(_standardize, _gradient)


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with the moments of the
    batch over all axes but the last when training, with running ones otherwise (Ioffe &
    Szegedy 2015, algorithms 1 and 2). Parameters and statistics as in
    `flax.linen.BatchNorm`: running = momentum * running + (1 - momentum) * batch, from
    mean 0 and (biased) variance 1.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):  # [..., C] -> [..., C]
        """Return x normalized; with `train` also update the collection "batch_stats",
        but for the call of `init`.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype),
            "var": self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype),
        }
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # moments need it
        if train:
            if not self.is_initializing():
                for name, value in zip(running, jax.lax.stop_gradient(moments(x)), strict=True):
                    running[name].value = (
                        self.momentum * running[name].value + (1 - self.momentum) * value
                    ).astype(self.param_dtype)
            x = standardize(x, self.epsilon)
        else:
            x = (x - running["mean"].value) / jnp.sqrt(running["var"].value + self.epsilon)
        return (x * over(scale, x.shape) + over(bias, x.shape)).astype(self.dtype)


# -- over the last axis: of each row by itself


def mean(x):  # [..., C] -> [..., 1]
    """The mean over the last axis as a product with a column: XLA would take that of
    more than 32 numbers in two passes.
    """
    return (x @ jnp.full(x.shape[-1], 1 / x.shape[-1], x.dtype))[..., None]


def _standardize_rows(x, epsilon, centred):
    x = x - mean(x) if centred else x
    sigma = jnp.sqrt(mean(x * x) + epsilon)
    standard = x / sigma
    return standard, (standard, sigma)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def standardize_rows(x, epsilon, centred):  # [..., C] -> [..., C]
    """u = (x - m) / sigma with sigma^2 = mean((x - m)^2) + epsilon and m = mean(x), or
    0 where not `centred`; its gradient is (g - mean(g) - u mean(g u)) / sigma, without
    mean(g) where not centred.
    """
    return _standardize_rows(x, epsilon, centred)[0]


def _gradient_rows(epsilon, centred, saved, g):
    standard, sigma = saved
    g = g - standard * mean(g * standard) - (mean(g) if centred else 0)
    return (g / sigma,)


standardize_rows.defvjp(_standardize_rows, _gradient_rows)


class LayerNorm(nn.Module):
    """u * scale + bias of `standardize_rows` (Ba et al. 2016); without centring and
    bias RMSNorm (Zhang & Sennrich 2019). Parameters as in `flax.linen.LayerNorm` and
    `RMSNorm`.
    """

    centred: bool = True
    use_bias: bool = True
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):  # [..., C] -> [..., C]
        """Return x with every row [C] normalized, by moments in float32."""
        shape = x.shape[-1:]
        u = standardize_rows(
            x.astype(jnp.promote_types(x.dtype, jnp.float32)), self.epsilon, self.centred
        )
        u = u * over(self.param("scale", nn.initializers.ones, shape, self.param_dtype), u.shape)
        if self.use_bias:
            u = u + over(
                self.param("bias", nn.initializers.zeros, shape, self.param_dtype), u.shape
            )
        return u.astype(self.dtype)

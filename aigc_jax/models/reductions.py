"""Sums over all axes but the last, and their transposes, as matrix products.

Why this file exists. On CPUs XLA rewrites a long sum over leading axes into a tree of `reduce_window`, one thread's work and
without vector instructions: the sum of [128, 28, 28, 64] takes 29 ms, as a product with a row of ones 9. Biases and batch normalization of
convolutional networks are made of such sums, forwards and backwards; half a training step went into them.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


@jax.custom_vjp
def total(x):  # [..., C] -> [C]
    """The sum over all axes but the last."""
    rows = x.reshape(-1, x.shape[-1])
    return jnp.ones(len(rows), x.dtype) @ rows


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def over(b, shape):  # [C] -> [*shape], whose last axis is C
    """b at every place: `broadcast_to`, whose transpose is `total`."""
    return jnp.broadcast_to(b, shape)


total.defvjp(lambda x: (total(x), x), lambda x, g: (over(g, x.shape),))
over.defvjp(lambda b, shape: (over(b, shape), None), lambda shape, _, g: (total(g),))


def moments(x):  # [..., C] -> [C], [C]
    """Mean and (biased) variance over all axes but the last."""
    n = x.size // x.shape[-1]
    mean = total(x) / n
    return mean, total((x - over(mean, x.shape)) ** 2) / n


def _standardize(x, epsilon):
    mean, var = moments(x)
    sigma = jnp.sqrt(var + epsilon)
    standard = (x - over(mean, x.shape)) / over(sigma, x.shape)
    return standard, (standard, sigma)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardize(x, epsilon):  # [..., C] -> [..., C]
    """u = (x - mean) / sigma, sigma^2 = variance + epsilon, with the gradient dx = (g - mean(g) - u mean(g u)) / sigma.

    Both end in a division, which XLA does not compute twice: what ended in a product would be computed again, at a stride, by every
    transpose that a convolution's gradient needs.
    """
    return _standardize(x, epsilon)[0]


def _gradient(epsilon, saved, g):
    (standard, sigma), n = saved, g.size // g.shape[-1]
    means = over(total(g) / n, g.shape) + standard * over(total(g * standard) / n, g.shape)
    return ((g - means) / over(sigma, g.shape),)


standardize.defvjp(_standardize, _gradient)


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with the moments of the batch over all axes but the last when
    training, with running ones otherwise (Ioffe & Szegedy 2015, algorithms 1 and 2). Parameters and statistics as in
    `flax.linen.BatchNorm`: running = momentum * running + (1 - momentum) * batch, from mean 0 and (biased) variance 1."""

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):  # [..., C] -> [..., C]
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
                    running[name].value = (self.momentum * running[name].value + (1 - self.momentum) * value).astype(self.param_dtype)
            x = standardize(x, self.epsilon)
        else:
            x = (x - running["mean"].value) / jnp.sqrt(running["var"].value + self.epsilon)
        return (x * over(scale, x.shape) + over(bias, x.shape)).astype(self.dtype)

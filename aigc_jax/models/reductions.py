"""Sums over all axes but the last, and their transposes, as matrix products.

Why this file exists. On CPUs XLA rewrites a long sum over leading axes into a tree of
`reduce_window`, one thread's work and without vector instructions: the sum of [128, 28,
28, 64] takes 29 ms, as a product with a row of ones 9. Biases and batch normalization
of convolutional networks are made of such sums, forwards and backwards; half a training
step went into them.
"""

from collections.abc import Callable
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


@jax.custom_vjp
def project(x, w):  # [..., D], [D, F] -> [..., F]
    """x w. Its gradient for w is x^T g as one product that has [D, F] already; as JAX
    transposes a product it is (g^T x)^T, and on CPUs a transposed copy of what is
    wider, which of logits is most of all.
    """
    return x @ w


def _project_gradients(saved, g):
    x, w = saved
    flat = lambda y: y.reshape(-1, y.shape[-1])
    return g @ w.T, jax.lax.dot_general(flat(x), flat(g), (((0,), (0,)), ((), ())))


project.defvjp(lambda x, w: (x @ w, (x, w)), _project_gradients)


class Dense(nn.Module):
    """x kernel + bias by `project` and `over`; parameters as in `flax.linen.Dense`."""

    features: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def adjust(self, kernel, train):
        """What the input is multiplied by."""
        return kernel

    @nn.compact
    def __call__(self, x, train=False):  # [..., D] -> [..., F]
        """Return x times the adjusted kernel, plus the bias if there is one."""
        kernel = self.param(
            "kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype
        )
        kernel = self.adjust(kernel, train)
        y = project(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        return y + over(
            self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype).astype(
                self.dtype
            ),
            y.shape,
        )

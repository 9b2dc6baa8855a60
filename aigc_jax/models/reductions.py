"""Sums over all axes but the last, and their transposes, as matrix products.

Why this file exists. On CPUs XLA rewrites a long sum over leading axes into a tree of
`reduce_window`, which runs on one thread without vector instructions: the sum of [128,
28, 28, 64] takes 29 ms, but 9 ms as a product with a row of ones. Biases and batch
normalization of convolutional networks need such sums in the forward and the backward
pass, where they took half of a training step.

A matrix product needs its operands in memory. The sum of a product of arrays is
therefore taken in two parts: sums of at most 32 numbers, for which XLA neither builds a
tree nor stores the product, and a matrix product of these.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array


@jax.custom_vjp
def sum_leading(x: Array) -> Array:  # [..., C] -> [C]
    """Return the sum over all axes but the last."""
    rows = x.reshape(-1, x.shape[-1])
    return jnp.ones(len(rows), x.dtype) @ rows


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def broadcast_leading(
    b: Array, shape: tuple[int, ...]
) -> Array:  # [C] -> [*shape], whose last axis is C
    """Broadcast b to `shape`, as `jnp.broadcast_to` but with `sum_leading` as its
    transpose.
    """
    return jnp.broadcast_to(b, shape)


sum_leading.defvjp(lambda x: (sum_leading(x), x), lambda x, g: (broadcast_leading(g, x.shape),))
broadcast_leading.defvjp(
    lambda b, shape: (broadcast_leading(b, shape), None), lambda shape, _, g: (sum_leading(g),)
)


def sum_within(x: Array) -> Array:  # [B, ..., C] -> [C]
    """Return `sum_leading` of an x that no other operation needs, without storing x.

    Neighbours within an example are summed first, so that sharded examples remain so.
    """
    size = math.prod(x.shape[1:-1])
    part = max(n for n in range(1, 33) if size % n == 0)
    return sum_leading(x.reshape(-1, part, x.shape[-1]).sum(1))


@jax.custom_vjp
def project(x: Array, w: Array) -> Array:  # [..., D], [D, F] -> [..., F], x @ w
    """Return x w, with a gradient for w that needs no transposed copy.

    The gradient is x^T g, one product of shape [D, F]. JAX transposes a product to
    (g^T x)^T instead, and on CPUs copies the wider operand transposed: of all layers
    the logits are the widest.
    """
    return x @ w


def _project_gradients(saved: tuple, g: Array) -> tuple[Array, Array]:
    x, w = saved
    flat = lambda y: y.reshape(-1, y.shape[-1])
    return g @ w.T, jax.lax.dot_general(flat(x), flat(g), (((0,), (0,)), ((), ())))


project.defvjp(lambda x, w: (x @ w, (x, w)), _project_gradients)


class Dense(nn.Module):
    """A dense layer, x kernel + bias, by `project` and `broadcast_leading`; its
    parameters are those of `flax.linen.Dense`.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def adjust_kernel(
        self, kernel: Array, train: bool
    ) -> Array:  # [D, F] -> [D, F], unchanged here
        """Return the matrix that multiplies the input; subclasses may override it, and
        update statistics if `train`.
        """
        return kernel

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # [..., D] -> [..., F]
        """Return x times the adjusted kernel, plus the bias if `use_bias`."""
        kernel = self.param(
            "kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype
        )
        kernel = self.adjust_kernel(kernel, train)
        y = project(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        return y + broadcast_leading(
            self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype).astype(
                self.dtype
            ),
            y.shape,
        )

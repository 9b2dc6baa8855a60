"""Gradients of a loss that is a mean over examples, in pieces and on devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from aigc_jax.core import axes
from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.transforms import traced_once


def mean_gradients(
    loss: Callable,
    params: PyTree,
    batch: PyTree,
    key: Array,
    rows: tuple[str, ...] = (),
    accumulate: int = 1,
    lay: Callable = lambda grads: grads,
) -> tuple[PyTree, dict]:
    """The gradient of `loss(params, batch, key) -> ([], aux)` and aux, a dict. Every
    training loss is differentiated here.

    rows         names in aux of what has a row for each example; the rest are means
                 over examples
    accumulate   over how many equal parts of the batch the gradient is averaged, one
                 after another, in the memory of one; exact for losses that are means
                 over examples
    lay          how the gradient is laid out on the devices (`core.sharding.scattered`)

    Where each device runs the program by itself it takes its part of the batch, and all
    get the means and rows of all.
    """
    batch = axes.own(batch)

    def one(part):
        grads, aux = jax.grad(loss, has_aux=True)(params, part, key)
        means = {name: value for name, value in aux.items() if name not in rows}
        return (grads, means), {name: aux[name] for name in rows}

    if accumulate == 1:
        means, joined = one(batch)
    else:
        # every so-many-th example, so that a part is spread over the devices as the
        # whole is
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

        once = traced_once(one)

        def body(total, part):
            means, each = once(part)
            return jax.tree.map(jnp.add, total, means), each

        shapes = jax.eval_shape(once, jax.tree.map(lambda x: x[0], parts))[0]
        total, joined = jax.lax.scan(
            body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), parts
        )
        means = jax.tree.map(lambda x: x / accumulate, total)
        joined = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), joined)
    grads, aux = axes.mean(means)
    return lay(grads), aux | axes.joined(joined)

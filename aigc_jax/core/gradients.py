"""Gradients of losses that are means over examples, with accumulation over parts of a
batch and averaging over devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from aigc_jax.core import axes
from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.transforms import trace_once


def mean_gradients(
    loss: Callable[[PyTree, PyTree, Array], tuple[Array, dict]],
    params: PyTree,
    batch: PyTree,
    key: Array,
    per_example_aux: tuple[str, ...] = (),
    grad_accumulation_steps: int = 1,
    constrain_grads: Callable[[PyTree], PyTree] = lambda grads: grads,
) -> tuple[PyTree, dict]:  # (gradient, aux)
    """Return the gradient of a loss and its auxiliary outputs. Every training loss is
    differentiated here.

    Within `axes.data_axis` each device computes on its part of the batch, and every
    device receives the means and rows of all devices.

    Args:
      loss: (params, batch, key) -> ([], aux), where aux is a dict.
      params: the parameters to differentiate by.
      batch: arrays [B, ...].
      key: passed to the loss.
      per_example_aux: names in aux of arrays with a row for each example; the other
        entries are means over examples.
      grad_accumulation_steps: number of equal parts of the batch over which the
        gradient is averaged sequentially, in the memory of one part; exact for losses
        that are means over examples.
      constrain_grads: determines how the gradient is sharded over the devices
        (`core.sharding.reduce_scatter_grads`).

    Returns:
      (gradient, aux).
    """
    batch = axes.take_device_part(batch)

    def one(part):
        grads, aux = jax.grad(loss, has_aux=True)(params, part, key)
        means = {name: value for name, value in aux.items() if name not in per_example_aux}
        return (grads, means), {name: aux[name] for name in per_example_aux}

    if grad_accumulation_steps == 1:
        means, row_aux = one(batch)
    else:
        # Strided, not contiguous: each part is sharded over the devices as the full
        # batch is.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, grad_accumulation_steps, *x.shape[1:]).swapaxes(0, 1), batch
        )

        once = trace_once(one)

        def body(total, part):
            means, each = once(part)
            return jax.tree.map(jnp.add, total, means), each

        shapes = jax.eval_shape(once, jax.tree.map(lambda x: x[0], parts))[0]
        total, row_aux = jax.lax.scan(
            body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), parts
        )
        means = jax.tree.map(lambda x: x / grad_accumulation_steps, total)
        row_aux = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), row_aux)
    grads, aux = axes.average_over_devices(means)
    return constrain_grads(grads), aux | axes.all_gather_rows(row_aux)

"""Norms of gradients, updates and parameters by group of parameters, as metrics of a
step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aigc_jax.core.method import Array
from aigc_jax.core.trees import format_key_path, upcast_to_float32
from aigc_jax.utils.errors import choose

PREFIX = "norm/"  # of the metrics' names

# config.run.log_norms -> (network, module) -> name of the group; None: no norms.
# `network` is "" for the trained network of a method with one; `module` is the first
# component of a parameter's path within its network.
GROUPS: dict[str, Callable[[str, str], str] | None] = {
    "none": None,
    "network": lambda network, module: network or "net",
    "module": lambda network, module: f"{network}/{module}".lstrip("/"),
}

MeasureNorms = Callable[..., dict[str, Array]]


def make_norms(config: ConfigDict) -> MeasureNorms:
    """Return (grads, before, after, network="") -> {metric: []}, the norms that
    config.run.log_norms selects; {} for "none".

    For each group G of parameters w, in float32 at least:

        norm/grad/G    sqrt(sum_G (dL/dw)^2), before clipping by the optimizer
        norm/update/G  sqrt(sum_G (w_after - w_before)^2)
        norm/param/G   sqrt(sum_G w_after^2)

    The arguments are trees of one network: the gradient, and the parameters before and
    after the update. Sums are over all elements, however they are sharded.
    """
    name_group = choose(GROUPS, config.run.log_norms, "config.run.log_norms")
    if name_group is None:
        return lambda grads, before, after, network="": {}

    def measure(grads, before, after, network=""):
        grads, before, after = map(upcast_to_float32, (grads, before, after))
        trees = dict(grad=grads, update=jax.tree.map(jnp.subtract, after, before), param=after)
        squares: dict[str, Array | float] = {}
        for kind, tree in trees.items():
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                group = name_group(network, format_key_path(path).split("/")[0])
                name = f"{PREFIX}{kind}/{group}"
                squares[name] = squares.get(name, 0.0) + jnp.sum(leaf**2)
        return {name: jnp.sqrt(total) for name, total in squares.items()}

    return measure

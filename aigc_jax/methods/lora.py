"""Low-rank adaptation of trained weights (Hu et al. 2022): W + (alpha / r) A B with A
[in, r] and B [r, out], where only A and B are trained.

A is initialized with normal numbers of variance 1 / in and B with zeros, so that the
adapted network initially equals the original.
"""

import re

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from aigc_jax.core.method import Array, PyTree
from aigc_jax.core.rng import fold_in
from aigc_jax.utils.errors import UserError, join_names, require

SEED = 1  # folded into the key of the network's own parameters


def validate(config: ConfigDict) -> None:
    """Raise a UserError unless config.lora has valid keys and values."""
    keys = dict(rank=0, alpha=0.0, match="")
    require(
        set(config.lora) == set(keys),
        f"config.lora must have the keys {', '.join(keys)}, not {', '.join(config.lora)}",
    )
    require(
        config.lora.rank >= 0,
        f"config.lora.rank = {config.lora.rank} must not be negative; 0 trains all parameters",
    )
    try:
        re.compile(config.lora.match)
    except re.error as e:
        raise UserError(
            f"config.lora.match = {config.lora.match!r} is not a regular expression: {e}"
        ) from None


def init_adaptation(
    config: ConfigDict, key: Array, params: PyTree
) -> dict[str, dict[str, Array]]:  # -> {path: {"a" [..., in, r], "b" [..., r, out]}}
    """Return {path of a kernel: {"a" [..., in, r], "b" [..., r, out]}} for every kernel
    whose path, such as layer_0/kernel, contains a match of config.lora.match.

    Args:
      config: the config, with config.lora.rank = r.
      key: the key of the network's own parameters, from which that of A is derived.
      params: the network's parameters; kernels of more than two dimensions are stacked
        matrices.

    Raises:
      UserError: if config.lora.match matches no kernel.
    """
    rank = config.lora.rank
    kernels = {
        path: w
        for path, w in sorted(flatten_dict(params, sep="/").items())
        if path.endswith("kernel") and w.ndim > 1
    }
    chosen = [path for path in kernels if re.search(config.lora.match, path)]
    require(
        chosen,
        f"config.lora.match = {config.lora.match!r} matches no kernel; the kernels are "
        f"{join_names(kernels)}",
    )
    out = {}
    for i, path in enumerate(chosen):
        *more, rows, columns = kernels[path].shape
        kind = kernels[path].dtype
        a = jax.random.normal(fold_in(key, SEED, i), (*more, rows, rank), kind) * rows**-0.5
        out[path] = dict(a=a, b=jnp.zeros((*more, rank, columns), kind))
    return out


def merge_adaptation(config: ConfigDict, params: PyTree) -> dict:  # -> W + (alpha / r) A B
    """Return the network's parameters.

    Args:
      config: the config, with config.lora.alpha and config.lora.rank.
      params: {"net": the network's parameters}, and {"lora": the adaptation to add, as
        `init_adaptation` returns} where present.
    """
    if "lora" not in params:
        return params["net"]
    flat, scale = flatten_dict(params["net"], sep="/"), config.lora.alpha / config.lora.rank
    adapted = {
        path: flat[path] + scale * (ab["a"] @ ab["b"]) for path, ab in params["lora"].items()
    }
    return unflatten_dict(flat | adapted, sep="/")

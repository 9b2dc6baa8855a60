"""Checks of configs and construction of networks, shared by the methods."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.config import flatten_config
from aigc_jax.core.method import Array
from aigc_jax.core.rng import fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.models.layers import ACTIVATIONS, NORMS
from aigc_jax.utils.errors import choose, nearest, require

# Fields of networks whose values are names in a table; a network's own `choices` take
# precedence.
NAMED = dict(activation=ACTIVATIONS, output=ACTIVATIONS, norm=NORMS)

# config.precision -> (dtype of the networks' arithmetic, dtype of the parameters).
# Losses, latents and metrics have at least float32.
PRECISIONS = {
    "float32": (jnp.float32, jnp.float32),
    "float64": (jnp.float64, jnp.float64),
    "bfloat16": (jnp.bfloat16, jnp.float32),
    "bfloat16_all": (jnp.bfloat16, jnp.bfloat16),  # optimiser moments too
}


def dtypes(config: ConfigDict) -> dict:
    """Return the keyword arguments `dtype` and `param_dtype` of every network."""
    dtype, param_dtype = choose(PRECISIONS, config.precision, "config.precision")
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # jax adds it at run time
    require(
        config.precision != "float64" or double,
        "config.precision = 'float64' needs JAX_ENABLE_X64=1 in the environment",
    )
    return dict(dtype=dtype, param_dtype=param_dtype)


def loss_dtype(config: ConfigDict):
    """Return the dtype of values outside networks: losses, latents and images."""
    return jnp.promote_types(dtypes(config)["dtype"], jnp.float32)


def check_keys(config: ConfigDict, keys: Sequence[str]) -> None:
    """Raise a UserError unless the config has these dotted keys."""
    known = flatten_config(config)
    for key in keys:
        require(
            key in known,
            f"config.{key} is missing; config.method = {config.method!r} reads {', '.join(keys)}",
        )


def check_images(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError unless the data are images or points."""
    require(
        spec.kind in ("image", "points"),
        f"config.data.name = {config.data.name!r} holds neither images nor points, "
        f"which config.method = {config.method!r} models",
    )


def make_network(module: Any, section: Mapping, key: str, config: ConfigDict, **more: Any) -> Any:
    """Return the network `module(**section, **more)` with the config's dtypes.

    Args:
      module: a network class.
      section: the section of the config with the network's fields.
      key: name of that section, for error messages.
      config: the complete config.
      **more: fields that are not in the section.

    Raises:
      UserError: if a field is unknown or missing, or its value is invalid.
    """
    fields = {
        f.name: f.default
        for f in dataclasses.fields(module)
        if f.name not in ("parent", "name", *dtypes(config), *more)
    }
    for name, value in section.items():
        require(
            name in fields,
            f"config.{key}.{name}: {module.__name__} has no such field{nearest(name, fields)}",
        )
        if name in (named := NAMED | getattr(module, "choices", {})):
            choose(named[name], value, f"config.{key}.{name}")
    for name, default in fields.items():
        require(
            name in section or default is not dataclasses.MISSING,
            f"config.{key}.{name} is missing; {module.__name__} needs it",
        )
    net = module(**section, **more, **dtypes(config))
    require(not net.shape_error(), f"config.{key}.{net.shape_error()}")
    return net


def weighted_means(sums: dict[str, np.ndarray]):
    """Return {name: sum / weight} of sums over examples, where the entry `weight` is
    the sum of the examples' weights.
    """
    return {
        name: float(np.float64(value) / np.float64(sums["weight"]))
        for name, value in sums.items()
        if name != "weight"
    }


def dropout_key(key: Array, index: Array, config: ConfigDict):  # [b] -> key
    """Return the key of noise that is drawn once for all examples of a part of a batch,
    such as dropout: the key differs between parts.
    """
    return key if len(index) == config.batch_size else fold_in(key, index[0])


ROW = 8  # images of one interpolation or traversal


def interpolate_noise(
    draw: Callable, key: Array, index: Array, dtype: Any
) -> tuple[Array, ...]:  # [B] -> [B, Z], [B]
    """Interpolate spherically between pairs of noise vectors (White 2016, section 2.1).

    Args:
      draw: (key, index [B]) -> noise [B, Z].
      key: key of the endpoints.
      index: numbers of the results: ROW consecutive ones form one interpolation.
      dtype: dtype of the interpolation parameter.

    Returns:
      Noise [B, Z], and the number [B] of the interpolation that each vector belongs to.
    """
    row, t = index // ROW, (index % ROW / (ROW - 1)).astype(dtype)[:, None]
    first, last = (draw(fold_in(key, end), row) for end in (0, 1))
    return slerp(first, last, t), row


def slerp(a: Array, b: Array, t: Array) -> Array:  # [B, Z], [B, Z], [B, 1] -> [B, Z]
    """Return sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, where w is the angle
    between a and b (Shoemake 1985; White 2016, section 2.1).
    """
    length = lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)
    angle = jnp.arccos(
        jnp.clip(jnp.sum(a * b, -1, keepdims=True) / (length(a) * length(b)), -1 + 1e-6, 1 - 1e-6)
    )
    return (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / jnp.sin(angle)

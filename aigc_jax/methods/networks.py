"""Checks of configs and construction of networks, shared by the methods."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aigc_jax.core.method import Array, GridLabels
from aigc_jax.core.rng import fold_in
from aigc_jax.data.dataset import Spec
from aigc_jax.models.layers import ACTIVATIONS, NORMS
from aigc_jax.utils.errors import choose, format_suggestion, require

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


def dtype_fields(config: ConfigDict) -> dict[str, Any]:
    """Return the keyword arguments `dtype` and `param_dtype` of every network; raise a
    UserError for an unknown config.precision, or float64 without JAX_ENABLE_X64.
    """
    dtype, param_dtype = choose(PRECISIONS, config.precision, "config.precision")
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # jax adds it at run time
    require(
        config.precision != "float64" or double,
        "config.precision = 'float64' needs JAX_ENABLE_X64=1 in the environment",
    )
    return dict(dtype=dtype, param_dtype=param_dtype)


def loss_dtype(config: ConfigDict) -> jnp.dtype:
    """Return the dtype of values outside networks (losses, latents, images): that of
    the networks, but float32 at least.
    """
    return jnp.promote_types(dtype_fields(config)["dtype"], jnp.float32)


def check_images_or_points(config: ConfigDict, spec: Spec) -> None:
    """Raise a UserError unless the data are images or points."""
    require(
        spec.kind in ("image", "points"),
        f"config.data.name = {config.data.name!r} holds neither images nor points, "
        f"which config.method = {config.method!r} models",
    )


def make_network(
    network_class: Any, section: Mapping, section_name: str, config: ConfigDict, **other_fields: Any
) -> Any:
    """Return the network network_class(**section, **other_fields) with the config's
    dtypes.

    Args:
      network_class: a network class.
      section: {field: value}, the section of the config with the network's fields.
      section_name: name of that section, for error messages.
      config: the complete config.
      **other_fields: fields that the data or other keys determine, not the section.

    Raises:
      UserError: if a field is unknown or missing, or its value is invalid.
    """
    fields = {
        f.name: f.default
        for f in dataclasses.fields(network_class)
        if f.name not in ("parent", "name", *dtype_fields(config), *other_fields)
    }
    for name, value in section.items():
        require(
            name in fields,
            f"config.{section_name}.{name}: {network_class.__name__} has no such "
            f"field"
            f"{format_suggestion(name, fields)}",
        )
        if name in (named := NAMED | getattr(network_class, "choices", {})):
            choose(named[name], value, f"config.{section_name}.{name}")
    for name, default in fields.items():
        require(
            name in section or default is not dataclasses.MISSING,
            f"config.{section_name}.{name} is missing; {network_class.__name__} needs it",
        )
    net = network_class(**section, **other_fields, **dtype_fields(config))
    require(not net.config_error(), f"config.{section_name}.{net.config_error()}")
    return net


def weighted_means(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Return {name: sum / weight} in float64.

    Args:
      sums: {name: weighted sum []} over examples; the entry "weight" is the sum of
        their weights, and not in the result.
    """
    return {
        name: float(np.float64(value) / np.float64(sums["weight"]))
        for name, value in sums.items()
        if name != "weight"
    }


def batch_part_key(key: Array, index: Array, config: ConfigDict) -> Array:  # [], [b] -> []
    """Return the key of noise that is drawn once for all examples of a part of a batch,
    such as dropout: the key differs between parts.

    Args:
      key: key of the noise of the step.
      index: numbers [b] of the part's examples; for b = config.batch_size the part is
        the entire batch, and the result is `key`.
      config: the config, with batch_size.
    """
    return key if len(index) == config.batch_size else fold_in(key, index[0])


def take_minibatch(
    batch: dict[str, Array], i: Array | int, num_minibatches: int
) -> dict[str, Array]:  # [B, ...] -> [B / num_minibatches, ...], strided
    """Return the examples i, i + num_minibatches, ..., so that the minibatch is sharded
    over devices like the full batch.
    """
    return jax.tree.map(lambda x: x.reshape(-1, num_minibatches, *x.shape[1:])[:, i], batch)


def set_latents(z: Array, batch: dict[str, Array]) -> Array:  # [B, Z] -> [B, Z]
    """Return latents z with the values of the batch's "latents" [B, Z] where
    these are not NaN; z if the batch has no such entry.
    """
    values = batch.get("latents")
    return z if values is None else jnp.where(jnp.isnan(values), z, values.astype(z.dtype))


ROW = 8  # images of one interpolation or traversal


def describe_prior(classes: tuple[str, ...]) -> dict[str, Any]:  # their names; (): no class
    """Return the fields of the `Sampler` of a prior: a grid with a column for each
    class, and the names of the classes.
    """
    if not classes:
        return {}
    labels = GridLabels(classes, "class", row_title="draw")
    return dict(grid=(ROW, len(classes)), classes=len(classes), labels=labels)


def describe_interpolation(
    classes: tuple[str, ...],
) -> dict[str, Any]:  # their names; (): no class
    """Return the fields of the `Sampler` of interpolations: a grid, with the parameter
    of `slerp` above the columns, between the end points, and the class or the number
    beside each row.
    """
    between = (f"{i / (ROW - 1):.2f}" for i in range(1, ROW - 1))
    labels = GridLabels(
        ("draw 1", *between, "draw 2"),
        "spherical interpolation of two draws",
        classes,
        "class" if classes else "pair",
        has_ends=True,
    )
    return dict(grid=(ROW, ROW), labels=labels)


def interpolate_noise(
    sample_noise: Callable[[Array, Array], Array], key: Array, index: Array, dtype: Any
) -> tuple[Array, Array]:  # [], [B] -> noise [B, Z], number of the interpolation [B]
    """Interpolate spherically between pairs of noise vectors (White 2016, section 2.1).

    Args:
      sample_noise: (key, index [B]) -> noise [B, Z].
      key: key of the endpoints.
      index: numbers [B] of the results: ROW consecutive ones form one interpolation.
      dtype: dtype of the interpolation parameter.

    Returns:
      Noise [B, Z], and the number [B] of the interpolation that each vector belongs to.
    """
    row, t = index // ROW, (index % ROW / (ROW - 1)).astype(dtype)[:, None]
    first, last = (sample_noise(fold_in(key, end), row) for end in (0, 1))
    return slerp(first, last, t), row


def slerp(a: Array, b: Array, t: Array) -> Array:  # [B, Z], [B, Z], [B, 1] -> [B, Z]
    """Return sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, where w is the angle
    between a and b (Shoemake 1985; White 2016, section 2.1).

    Args:
      a: vectors at t = 0, not zero.
      b: vectors at t = 1, not zero; w is clipped to [0.0014, pi - 0.0014].
      t: positions between a and b, in [0, 1].
    """
    length = lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)
    angle = jnp.arccos(
        jnp.clip(jnp.sum(a * b, -1, keepdims=True) / (length(a) * length(b)), -1 + 1e-6, 1 - 1e-6)
    )
    return (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / jnp.sin(angle)

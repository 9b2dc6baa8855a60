"""What the methods' builders check and translate alike."""

import dataclasses

import jax
import jax.numpy as jnp

from aigc_jax.core.config import leaves
from aigc_jax.core.rng import fold
from aigc_jax.models.layers import ACTIVATIONS, NORMS
from aigc_jax.utils.errors import choose, nearest, require

# Fields of networks that name an entry of a table; a network's own `choices` come
# before them.
NAMED = dict(activation=ACTIVATIONS, output=ACTIVATIONS, norm=NORMS)

# config.precision -> (dtype of the networks' arithmetic, dtype of the parameters).
# Losses, latents and metrics are never narrower than float32.
PRECISIONS = {
    "float32": (jnp.float32, jnp.float32),
    "float64": (jnp.float64, jnp.float64),
    "bfloat16": (jnp.bfloat16, jnp.float32),
    "bfloat16_all": (jnp.bfloat16, jnp.bfloat16),  # moments too
}


def dtypes(config) -> dict:
    """The keyword arguments of every network."""
    dtype, param_dtype = choose(PRECISIONS, config.precision, "config.precision")
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # jax adds it at run time
    require(
        config.precision != "float64" or double,
        "config.precision = 'float64' needs JAX_ENABLE_X64=1 in the environment",
    )
    return dict(dtype=dtype, param_dtype=param_dtype)


def working(config):
    """The dtype of what is not a network's: losses, latents, pictures."""
    return jnp.promote_types(dtypes(config)["dtype"], jnp.float32)


def check_keys(config, keys):
    """Raise a UserError unless the config has these dotted keys."""
    known = leaves(config)
    for key in keys:
        require(
            key in known,
            f"config.{key} is missing; config.method = {config.method!r} reads {', '.join(keys)}",
        )


def check_images(config, spec):
    """Raise a UserError unless the data are images or points."""
    require(
        spec.kind in ("image", "points"),
        f"config.data.name = {config.data.name!r} holds neither pictures nor points, "
        f"which config.method = {config.method!r} draws",
    )


def network(module, section, key, config, **more):
    """`module(**section)` with the config's dtypes: the whole bridge from a config to a
    network, with readable errors.
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
    require(not net.misfit(), f"config.{key}.{net.misfit()}")
    return net


def apart(key, index, config):  # [b] -> key
    """The key of what is drawn for a whole part of a batch at once, such as dropout: of
    each part another.
    """
    return key if len(index) == config.batch_size else fold(key, index[0])


ROW = 8  # pictures of one interpolation or traversal


def between(draw, key, index, dtype):  # [B] -> [B, Z], [B]
    """Rows of ROW noises between two draws, draw(key, index [B]) -> [B, Z], along the
    sphere (White 2016, section 2.1); and which row each is of.
    """
    row, t = index // ROW, (index % ROW / (ROW - 1)).astype(dtype)[:, None]
    first, last = (draw(fold(key, end), row) for end in (0, 1))
    return spherical(first, last, t), row


def spherical(a, b, t):  # [B, Z], [B, Z], [B, 1] -> [B, Z]
    """sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b
    (Shoemake 1985; White 2016, section 2.1).
    """
    length = lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)
    angle = jnp.arccos(
        jnp.clip(jnp.sum(a * b, -1, keepdims=True) / (length(a) * length(b)), -1 + 1e-6, 1 - 1e-6)
    )
    return (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / jnp.sin(angle)

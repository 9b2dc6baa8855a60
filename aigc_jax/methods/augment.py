"""Random changes of pictures [B, H, W, C] in [-1, 1] that gradients pass through (Zhao
et al. 2020, "differentiable augmentation").

Each is (x, key, index) -> x; example i is changed by what fold_in(key, index[i]) draws.
"""

import jax
import jax.numpy as jnp

from aigc_jax.core.rng import fold

REACH = 1 / 8  # of a side: how far pictures are moved
HOLE = 1 / 2  # of a side: the square that is cut out


def uniform(key, index, shape=(), low=0.0, high=1.0):  # [B] -> [B, *shape]
    """Uniform numbers, each row keyed by its own index."""
    return jax.vmap(lambda i: jax.random.uniform(fold(key, i), shape, minval=low, maxval=high))(
        index
    )


def colour(x, key, index):
    """Brightness by U(-1/2, 1/2), saturation by U(0, 2), contrast by U(1/2, 3/2), for
    values in [-1, 1].
    """
    u = uniform(key, index, (3,)).astype(x.dtype)[:, :, None, None, None]
    x = x + (u[:, 0] - 0.5)
    grey = x.mean(-1, keepdims=True)
    x = (x - grey) * (2 * u[:, 1]) + grey
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (u[:, 2] + 0.5) + mean


def translation(x, key, index):
    """Moved by up to 1/8 of a side each way; zeros come in."""
    _, height, width, channels = x.shape
    reach = [max(1, round(side * REACH)) for side in (height, width)]
    around = jnp.pad(x, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)))
    u = uniform(key, index, (2,))
    start = jnp.floor(u * (2 * jnp.array(reach) + 1)).astype(jnp.int32)
    cut = lambda picture, at: jax.lax.dynamic_slice(
        picture, (*at, jnp.zeros_like(at[0])), (height, width, channels)
    )
    return jax.vmap(cut)(around, start)


def cutout(x, key, index):
    """A square of half a side is zero, its centre anywhere in the picture."""
    places = []
    for axis, side in enumerate(x.shape[1:3]):
        centre = jnp.floor(uniform(fold(key, axis), index) * (side + 1 - side % 2))[:, None]
        at = jnp.arange(side)
        half = round(side * HOLE) // 2
        places.append((at >= centre - half) & (at < centre - half + round(side * HOLE)))
    return jnp.where((places[0][:, :, None] & places[1][:, None, :])[..., None], 0, x)


# config.game.augment -> function
AUGMENTATIONS = {"colour": colour, "translation": translation, "cutout": cutout}

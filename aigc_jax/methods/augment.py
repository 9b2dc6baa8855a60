"""Differentiable random augmentations of images [B, H, W, C] in [-1, 1] (Zhao et al.
2020).

Each is a function (x, key, index) -> x; fold_in(key, index[i]) keys the augmentation of
example i.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aigc_jax.core.method import Array
from aigc_jax.core.rng import fold_in

REACH = 1 / 8  # of a side: the largest translation
HOLE = 1 / 2  # of a side: the side of the square that is cut out


def uniform_by_index(
    key: Array, index: Array, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0
) -> Array:  # [], [B] -> [B, *shape]
    """Return uniform numbers in [low, high), each row keyed by its own index.

    Args:
      key: key of the numbers.
      index: numbers [B] of the rows.
      shape: shape of a row; () for one number per example.
      low: lower bound.
      high: upper bound.
    """
    return jax.vmap(lambda i: jax.random.uniform(fold_in(key, i), shape, minval=low, maxval=high))(
        index
    )


def colour(x: Array, key: Array, index: Array) -> Array:  # [B, H, W, C] -> [B, H, W, C]
    """Shift brightness by U(-1/2, 1/2), then scale saturation by U(0, 2) and contrast
    by U(1/2, 3/2). The result is not clipped to [-1, 1].
    """
    u = uniform_by_index(key, index, (3,)).astype(x.dtype)[:, :, None, None, None]
    x = x + (u[:, 0] - 0.5)
    grey = x.mean(-1, keepdims=True)
    x = (x - grey) * (2 * u[:, 1]) + grey
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (u[:, 2] + 0.5) + mean


def translation(x: Array, key: Array, index: Array) -> Array:  # [B, H, W, C] -> [B, H, W, C]
    """Translate images by up to 1/8 of a side, but at least up to one pixel, in each
    direction, padded with zeros.
    """
    _, height, width, channels = x.shape
    reach = [max(1, round(side * REACH)) for side in (height, width)]
    padded = jnp.pad(x, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)))
    u = uniform_by_index(key, index, (2,))
    start = jnp.floor(u * (2 * jnp.array(reach) + 1)).astype(jnp.int32)
    crop = lambda image, at: jax.lax.dynamic_slice(
        image, (*at, jnp.zeros_like(at[0])), (height, width, channels)
    )
    return jax.vmap(crop)(padded, start)


def cutout(x: Array, key: Array, index: Array) -> Array:  # [B, H, W, C] -> [B, H, W, C]
    """Set a rectangle of half the height and half the width, halves rounded up, to
    zero, centred at a random point of the image; the part beyond the border is cut off.
    """
    masks = []
    for axis, side in enumerate(x.shape[1:3]):
        hole = int(side * HOLE + 0.5)
        centre = jnp.floor(uniform_by_index(fold_in(key, axis), index) * (side + 1 - hole % 2))[
            :, None
        ]
        first, at = centre - hole // 2, jnp.arange(side)
        masks.append((at >= first) & (at < first + hole))
    return jnp.where((masks[0][:, :, None] & masks[1][:, None, :])[..., None], 0, x)


# config.gan.augment -> function
AUGMENTATIONS = {"colour": colour, "translation": translation, "cutout": cutout}

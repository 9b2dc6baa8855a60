"""Arrays as images: 8-bit values, grids of samples, PNG files.

Only `save_png` imports Pillow.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.utils.documents import write_atomically

GAP = 2  # pixels between the images of a grid


def choose_grid_shape(num_cells: int) -> tuple[int, int]:  # (rows, columns)
    """Return (rows, columns) for `num_cells` cells: without empty cells if the ratio of
    the sides is then at most 2.5, otherwise nearly square.
    """
    rows = max(r for r in range(1, math.isqrt(num_cells) + 1) if num_cells % r == 0)
    if num_cells / rows <= 2.5 * rows:
        return rows, num_cells // rows
    columns = math.isqrt(num_cells - 1) + 1
    return -(-num_cells // columns), columns


def to_uint8(images: np.ndarray) -> np.ndarray:  # [...] in [-1, 1] -> [...] in 0 .. 255
    """Return 8-bit grey levels of images in [-1, 1]: (x + 1) 127.5, rounded half up,
    clipped; NaN is 128.
    """
    return (np.clip(np.nan_to_num(images), -1, 1) * 127.5 + 128).astype(np.uint8)


def quantize_as_saved(
    samples: np.ndarray, spec: Any
) -> np.ndarray:  # [N, ...] -> [N, ...], images in [-1, 1]
    """Return the values that a file of the samples stores; metrics use the same values.

    Images [N, (K,) H, W, C] are clipped to [-1, 1] and, if the data are integer grey
    levels, rounded to the 256 levels of a PNG, to the same numbers as 8-bit data.
    Values that are not finite become NaN. Samples that are not images (points, latents,
    likelihoods, tokens) are returned unchanged.

    Args:
      samples: [N, ...].
      spec: the `data.dataset.Spec` of the data.
    """
    if spec.kind != "image" or samples.shape[1:][-3:] != tuple(spec.shape):
        return samples
    if spec.levels:
        out = to_uint8(samples).astype(np.float32)
        out += out
        out -= np.float32(
            255
        )  # exact: only the product rounds, as in data.dataset.wrap_image_arrays
        out *= np.float32(1 / 255)
    else:
        out = np.clip(samples, -1, 1)
    out[~np.isfinite(samples)] = np.nan
    return out


class GridLayout(NamedTuple):
    """The places of the images of a grid, in pixels.

    Attributes:
      rows, columns: number of cells.
      height, width: size of one enlarged image.
      scale: factor by which images are enlarged.
      strip: height of a white strip below each row of images, for captions.
    """

    rows: int
    columns: int
    height: int
    width: int
    scale: int
    strip: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the grid."""
        return (
            self.rows * (self.height + self.strip + GAP) - GAP,
            self.columns * (self.width + GAP) - GAP,
        )

    def locate(self, cell: int) -> tuple[int, int]:  # (y, x)
        """Return the top left corner of an image."""
        row, column = divmod(cell, self.columns)
        return row * (self.height + self.strip + GAP), column * (self.width + GAP)


def lay_out_grid(
    shape: Sequence[int], columns: int | None = None, num_stacked: int = 1, strip: int = 0
) -> GridLayout:  # of cells [N, H, W, C]
    """Return the layout of a grid: one scale for all images, which enlarges small ones
    by a whole factor to about 64 pixels.

    Args:
      shape: [N, H, W, C] of the cells.
      columns: cells per row; None: the columns of `choose_grid_shape`.
      num_stacked: number of images of height H / num_stacked in each cell.
      strip: as in `GridLayout`.
    """
    n, h, w = shape[:3]
    scale = max(1, round(64 / max(h // num_stacked, w)))
    rows, columns = (-(-n // columns), columns) if columns else choose_grid_shape(n)
    return GridLayout(rows, columns, h * scale, w * scale, scale, strip)


def make_image_grid(
    images: np.ndarray, columns: int | None = None
) -> np.ndarray:  # [N, H, W, C] in [-1, 1] -> uint8 [H', W', C]
    """Return the images in one grid, row by row, separated by lines of two pixels, in
    the layout of `lay_out_grid`.

    Args:
      images: [N, H, W, C] in [-1, 1].
      columns: images per row; None: the columns of `choose_grid_shape`.
    """
    return fill_grid(images, lay_out_grid(images.shape, columns))


def fill_grid(
    cells: np.ndarray, layout: GridLayout
) -> np.ndarray:  # [N, H, W, C] in [-1, 1] -> uint8 [H', W', C]
    """Return the pixels of cells in a layout; lines between them and empty cells are
    grey (128), strips white.
    """
    pixels = to_uint8(cells).repeat(layout.scale, axis=1).repeat(layout.scale, axis=2)
    out = np.full((*layout.size, cells.shape[-1]), 128, np.uint8)
    for i, image in enumerate(pixels):
        y, x = layout.locate(i)
        out[y : y + layout.height, x : x + layout.width] = image
    for row in range(layout.rows if layout.strip else 0):
        y = layout.locate(row * layout.columns)[0] + layout.height
        out[y : y + layout.strip] = 255
    return out


def save_png(
    path: Path, pixels: np.ndarray, origin: dict[str, str]
) -> None:  # [H, W, C] uint8, C of 1 or 3
    """Write a PNG.

    Args:
      path: the file.
      pixels: uint8 [H, W, C], C of 1 or 3.
      origin: {name: text}, such as `provenance_marks.describe_origin`; written as text
        chunks.
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for key, value in origin.items():
        info.add_text(key, str(value))
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        buffer, "PNG", pnginfo=info
    )
    write_atomically(path, buffer.getvalue())


def is_drawable(sample_shape: Sequence[int], spec: Any) -> bool:
    """Return whether a sample of this shape is an image or a point in the space of the
    data, or K of them [K, ...] for one example.

    Args:
      sample_shape: of one sample, without the axis of samples.
      spec: the `data.dataset.Spec` of the data.
    """
    own = tuple(spec.shape)
    has_shape = len(sample_shape) - len(own) in (0, 1) and tuple(sample_shape[-len(own) :]) == own
    return has_shape and spec.kind in ("image", "points")

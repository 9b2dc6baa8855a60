"""Sheets: image grids with a title, and the names of rows and columns in a margin that
changes no pixel of the images. Text is set in Pillow's own font, or where it
is not ASCII in that of `media.glyphs`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aigc_jax.media.glyphs import choose_font, escape_missing
from aigc_jax.media.images import GAP, GridLayout, fill_grid, lay_out_grid

if TYPE_CHECKING:
    from aigc_jax.core.method import GridLabels

FONT_SIZE = 12  # pixels
LINE = 16  # pixels of a line of text
SPACE = 6  # pixels between text and images
FRAME = (214, 39, 40)  # red: of end points, beside dark and light images


class Annotations(NamedTuple):
    """What a sheet says of its samples."""

    title: str = ""  # lines above the grid
    labels: "GridLabels | None" = None  # of rows and columns
    captions: Sequence[str] = ()  # one below each sample


PLAIN = Annotations()


class Margins(NamedTuple):
    """Pixels around the grid of a sheet."""

    top: int
    left: int
    right: int
    bottom: int


def make_sheet(
    images: np.ndarray, columns: int | None = None, annotations: Annotations = PLAIN
) -> np.ndarray:  # [N, K, H, W, C] in [-1, 1] -> uint8 [H', W', C]
    """Return a grid of images (`images.fill_grid`) with its annotations in a
    white margin; without annotations, only the grid. A sheet with end points has three
    channels, since they have coloured frames.

    Args:
      images: K images of each of N samples [N, K, H, W, C], stacked in one cell.
      columns: samples per row; None: the columns of `images.choose_grid_shape`.
      annotations: title, labels and captions.
    """
    n, k, h, w, c = images.shape
    strip = LINE if annotations.captions else 0
    cells = images.reshape(n, k * h, w, c)
    layout = lay_out_grid(cells.shape, columns, k, strip)
    grid = fill_grid(cells, layout)
    if annotations == PLAIN:
        return grid
    row_names = name_rows(annotations.labels, layout, k)
    margins = measure_margins(annotations, row_names, layout)
    has_ends = annotations.labels is not None and annotations.labels.has_ends
    sheet = _surround(grid.repeat(3, axis=2) if has_ends and c == 1 else grid, margins)
    if has_ends:
        _frame_ends(sheet, layout, margins, n)
    writer = _Writer(sheet)
    _write_title_and_columns(writer, annotations, layout, margins)
    _write_rows(writer, annotations, row_names, layout, margins)
    for i, caption in enumerate(annotations.captions[:n]):
        y, x = layout.locate(i)
        middle = margins.left + x + layout.width // 2
        writer.write(caption, middle, margins.top + y + layout.height + LINE // 2, "mm")
    return writer.pixels(sheet.shape[2])


def _surround(grid: np.ndarray, margins: Margins) -> np.ndarray:
    """Return the pixels of a grid [H, W, C] in white margins."""
    sides = ((margins.top, margins.bottom), (margins.left, margins.right), (0, 0))
    return np.pad(grid, sides, constant_values=255)


def name_rows(labels: "GridLabels | None", layout: GridLayout, num_stacked: int) -> list[str]:
    """Return the names beside a grid, from top to bottom: one for each row, or one for
    each of the stacked images of each row.
    """
    if labels is None:
        return []
    if labels.images and len(labels.images) == num_stacked:
        return list(labels.images) * layout.rows
    if labels.rows:
        return [labels.rows[i % len(labels.rows)] for i in range(layout.rows)]
    return [str(i + 1) for i in range(layout.rows)] if labels.row_title else []


def measure_margins(
    annotations: Annotations, row_names: Sequence[str], layout: GridLayout
) -> Margins:
    """Return the margins that hold the annotations; text that is wider than the grid
    widens them.
    """
    labels, lines = annotations.labels, annotations.title.splitlines()
    top, left, centred = LINE * len(lines), 0, [*annotations.captions]
    beyond = 0  # of centred text, on either side of the grid
    if labels is not None:
        top += LINE * bool(labels.column_title) + measure_columns(labels, layout)
        left = max((measure_text(name) for name in row_names), default=0)
        left += (LINE if labels.row_title and row_names else 0) + SPACE * bool(row_names)
        if measure_columns(labels, layout) <= LINE:
            centred += labels.columns[: layout.columns]
        beyond = (measure_text(labels.column_title) - layout.size[1]) // 2
    widest = max((measure_text(text) for text in centred), default=0)
    beyond = max(0, beyond, (widest - layout.width) // 2 + 1)
    title = max((measure_text(line) for line in lines), default=0)
    right = max(SPACE, beyond + SPACE, title + SPACE - layout.size[1])
    return Margins(top + SPACE, max(left, beyond) + SPACE, right, SPACE)


def measure_columns(labels: "GridLabels", layout: GridLayout) -> int:
    """Return the height of the names of columns: those that are wider than the columns
    read from bottom to top.
    """
    widest = max(map(measure_text, labels.columns[: layout.columns]), default=0)
    if widest + 4 > layout.width + GAP:
        return max(widest, LINE + 1)
    return LINE * bool(labels.columns)


def measure_text(text: str) -> int:
    """Return the width of a line of text in pixels."""
    return int(np.ceil(choose_font(text, FONT_SIZE).getlength(escape_missing(text))))


class _Writer:
    """Writes black text on an image."""

    def __init__(self, pixels: np.ndarray) -> None:
        from PIL import Image, ImageDraw

        self.image: Any = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        self.draw = ImageDraw.Draw(self.image)

    def write(self, text: str, x: int, y: int, anchor: str) -> None:
        """Write a line of text at an anchor of Pillow, such as "mm", its middle."""
        black: Any = 0 if self.image.mode == "L" else (0, 0, 0)
        font = choose_font(text, FONT_SIZE)
        self.draw.text((x, y), escape_missing(text), fill=black, font=font, anchor=anchor)

    def write_upwards(self, text: str, x: int, y: int) -> None:
        """Write a line that reads from bottom to top, with its middle at (x, y)."""
        from PIL import Image, ImageDraw

        line = Image.new("L", (measure_text(text), LINE), 255)
        draw, font = ImageDraw.Draw(line), choose_font(text, FONT_SIZE)
        draw.text((0, LINE // 2), escape_missing(text), fill=0, font=font, anchor="lm")
        turned = line.transpose(Image.Transpose.ROTATE_90)
        self.image.paste(turned, (x - LINE // 2, max(0, y - turned.height // 2)))

    def pixels(self, channels: int) -> np.ndarray:  # [H, W, C]
        """Return the image as an array."""
        return np.array(self.image).reshape(*self.image.size[::-1], channels)


def _write_title_and_columns(
    writer: _Writer, annotations: Annotations, layout: GridLayout, margins: Margins
) -> None:
    """Write the title and the names of columns."""
    y = SPACE // 2 + LINE // 2
    for line in annotations.title.splitlines():
        writer.write(line, margins.left, y, "lm")
        y += LINE
    labels = annotations.labels
    if labels is None:
        return
    if labels.column_title:
        writer.write(labels.column_title, margins.left + layout.size[1] // 2, y, "mm")
        y += LINE
    height = measure_columns(labels, layout)
    for i, name in enumerate(labels.columns[: layout.columns]):
        middle = margins.left + i * (layout.width + GAP) + layout.width // 2
        if height > LINE:
            bottom = y - LINE // 2 + height
            writer.write_upwards(name, middle, bottom - measure_text(name) // 2)
        else:
            writer.write(name, middle, y, "mm")


def _write_rows(
    writer: _Writer,
    annotations: Annotations,
    names: Sequence[str],
    layout: GridLayout,
    margins: Margins,
) -> None:
    """Write the names of rows, and what the rows are."""
    each = len(names) // layout.rows  # one name, or one for each stacked image
    for i, name in enumerate(names):
        row, part = divmod(i, each)
        y = row * (layout.height + layout.strip + GAP) + (2 * part + 1) * layout.height // (
            2 * each
        )
        writer.write(name, margins.left - SPACE, margins.top + y, "rm")
    labels = annotations.labels
    if names and labels is not None and labels.row_title:
        writer.write_upwards(
            labels.row_title, SPACE + LINE // 2 - 2, margins.top + layout.size[0] // 2
        )


def _frame_ends(sheet: np.ndarray, layout: GridLayout, margins: Margins, count: int) -> None:
    """Frame the images of the first and the last column in FRAME, in the lines around
    them.
    """
    for i in range(count):
        if i % layout.columns not in (0, layout.columns - 1):
            continue
        y, x = (a + b for a, b in zip(layout.locate(i), margins[:2], strict=True))
        bottom, right = y + layout.height, x + layout.width
        sheet[y - GAP : y, x - GAP : right + GAP] = FRAME
        sheet[bottom : bottom + GAP, x - GAP : right + GAP] = FRAME
        sheet[y - GAP : bottom + GAP, x - GAP : x] = FRAME
        sheet[y - GAP : bottom + GAP, right : right + GAP] = FRAME

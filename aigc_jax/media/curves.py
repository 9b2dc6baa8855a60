"""Curves of metrics over training steps, drawn by Pillow: every trial of a sweep draws
them, and matplotlib takes nine times as long, imported or not (docs/design/log.md).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.media.glyphs import choose_font, escape_missing
from aigc_jax.media.images import save_png
from aigc_jax.media.log_axes import MOST_TICKS, choose_multiples, format_plain
from aigc_jax.utils.quantities import label_metric

COLOURS = {"train": (255, 127, 14), "valid": (31, 119, 180), "test": (44, 160, 44)}
GRID, FRAME, TEXT = (232, 232, 232), (60, 60, 60), (0, 0, 0)
COLUMNS = 3
CELL = (420, 280)  # pixels of a panel, with its texts
LEFT, TOP, RIGHT, BOTTOM = 62, 28, 14, 42  # pixels around the frame of a panel
FONT_SIZE = 11
SCALE = 3  # panels are drawn this much larger, and reduced
MARGIN = 0.05  # of an axis beyond its values
LOG_RATIO = 30  # of the largest to the smallest value, from which an axis is logarithmic
MOST_MARKED = 50  # points of a line that has markers


class Axis(NamedTuple):
    """An axis of a panel: its ends in values, or in their logarithms, and in pixels."""

    low: float
    high: float
    first: int
    last: int
    ticks: tuple[float, ...]
    is_log: bool = False

    def place(self, value: float) -> float:  # -> pixels
        """Return the pixel of a value."""
        value = math.log10(value) if self.is_log else value
        return self.first + (self.last - self.first) * (value - self.low) / (self.high - self.low)


class Panel(NamedTuple):
    """A metric: its lines by split, finite points (step, value) in order of steps."""

    name: str
    lines: dict[str, list[tuple[float, float]]]


def save_curves(path: Path, rows: list[dict], origin: dict[str, str]) -> None:
    """Write curves over training steps as a PNG, with one panel per value and one line
    per split; without values, write nothing. An axis of positive values whose largest
    is more than LOG_RATIO times the smallest is logarithmic.

    Args:
      path: the PNG file.
      rows: {"step": step, "split": a key of COLOURS, name: value, ...}; values that are
        None or not finite are left out.
      origin: {name: text}, such as `provenance_marks.describe_origin`.
    """
    if panels := collect_panels(rows):
        save_png(path, draw_panels(panels), origin)


def collect_panels(rows: list[dict]) -> list[Panel]:
    """Return a panel for every value of rows, in order of appearance."""
    names = dict.fromkeys(k for row in rows for k in row if k not in ("step", "split"))
    return [Panel(name, _collect_lines(rows, name)) for name in names]


def _collect_lines(rows: list[dict], name: str) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.get(name)
        if value is not None and math.isfinite(value):
            lines.setdefault(row["split"], []).append((row["step"], value))
    return {split: lines[split] for split in COLOURS if split in lines}


def draw_panels(panels: Sequence[Panel]) -> np.ndarray:  # -> uint8 [H, W, 3]
    """Return the image of panels, COLUMNS of them in a row."""
    columns = min(COLUMNS, len(panels))
    width, height = CELL
    sheet = np.full((-(-len(panels) // columns) * height, columns * width, 3), 255, np.uint8)
    for i, panel in enumerate(panels):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = draw_panel(panel)
    return sheet


def draw_panel(panel: Panel) -> np.ndarray:  # -> uint8 [H, W, 3] of CELL
    """Return the image of one panel."""
    from PIL import Image, ImageDraw

    x_axis, y_axis = make_axes(panel)
    large = Image.new("RGB", (CELL[0] * SCALE, CELL[1] * SCALE), "white")
    draw = ImageDraw.Draw(large)
    _draw_frame(draw, x_axis, y_axis)
    for split, points in panel.lines.items():
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
        _draw_line(draw, places, COLOURS[split])
    image = large.reduce(SCALE)
    _write_texts(ImageDraw.Draw(image), panel, x_axis, y_axis)
    return np.asarray(image)


def make_axes(panel: Panel) -> tuple[Axis, Axis]:  # of steps and of values
    """Return the axes that hold all points of a panel."""
    points = [point for line in panel.lines.values() for point in line]
    steps, values = zip(*points, strict=True) if points else ((0, 1), (0, 1))
    return (
        make_axis(steps, LEFT, CELL[0] - RIGHT, is_integer=True),
        make_axis(values, CELL[1] - BOTTOM, TOP, can_be_log=True),
    )


def make_axis(
    values: Sequence[float],
    first: int,
    last: int,
    *,
    can_be_log: bool = False,
    is_integer: bool = False,
) -> Axis:
    """Return the axis of values, from the pixel `first` to the pixel `last`."""
    low, high = min(values), max(values)
    if can_be_log and low > 0 and high > LOG_RATIO * low:
        low, high = _widen(math.log10(low), math.log10(high))
        return Axis(low, high, first, last, choose_log_ticks(10**low, 10**high), is_log=True)
    low, high = _widen(low, high)
    return Axis(low, high, first, last, choose_ticks(low, high, is_integer))


def _widen(low: float, high: float) -> tuple[float, float]:
    """Return the ends with a margin; around a single value, one that is visible."""
    span = high - low
    if span <= 1e-12 * max(abs(low), abs(high)):
        span = (0.1 * abs(low) or 1.0) / MARGIN
    return low - MARGIN * span, high + MARGIN * span


def choose_ticks(low: float, high: float, is_integer: bool = False) -> tuple[float, ...]:
    """Return at most MOST_TICKS multiples of 1, 2 or 5 times a power of ten."""
    power = math.floor(math.log10((high - low) / MOST_TICKS))
    power = max(power, 0) if is_integer else power
    # Dividing by a power of ten gives the nearest number, multiplying by 0.1 does not.
    scale = lambda i: i * 10**power if power >= 0 else i / 10**-power
    for multiple in (1, 2, 5, 10, 20):
        step = scale(multiple)
        numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
        if len(numbers) <= MOST_TICKS:
            break
    return tuple(scale(multiple * i) for i in numbers)


def choose_log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return multiples of powers of ten, at most MOST_TICKS of them where the powers of
    ten alone are not more.
    """
    multiples = choose_multiples(low, high, MOST_TICKS)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{m}e{power}") for power in powers for m in multiples]
    inside = [tick for tick in ticks if low <= tick <= high]
    return tuple(inside[:: -(-len(inside) // MOST_TICKS)])


def _draw_frame(draw: Any, x_axis: Axis, y_axis: Axis) -> None:
    """Draw the grid and the frame, of lines one pixel wide after the reduction."""

    def fill(x: float, y: float, x_end: float, y_end: float, colour: tuple) -> None:
        left, top, right, bottom = (round(value) * SCALE for value in (x, y, x_end, y_end))
        draw.rectangle((left, top, right + SCALE - 1, bottom + SCALE - 1), fill=colour)

    left, right, bottom, top = x_axis.first, x_axis.last, y_axis.first, y_axis.last
    for tick in x_axis.ticks:
        fill(x_axis.place(tick), top, x_axis.place(tick), bottom + 3, GRID)
    for tick in y_axis.ticks:
        fill(left - 3, y_axis.place(tick), right, y_axis.place(tick), GRID)
    for ends in ((left, top, left, bottom), (right, top, right, bottom)):
        fill(*ends, FRAME)
    for ends in ((left, top, right, top), (left, bottom, right, bottom)):
        fill(*ends, FRAME)


def _draw_line(draw: Any, places: list[tuple[float, float]], colour: tuple[int, ...]) -> None:
    """Draw a line through places in pixels, with a dot at each of a few."""
    centres = [((x + 0.5) * SCALE, (y + 0.5) * SCALE) for x, y in places]
    is_marked = len(places) <= MOST_MARKED
    if len(centres) > 1:
        width = round((1.6 if is_marked else 1.1) * SCALE)
        draw.line(centres, fill=colour, width=width, joint="curve")
    radius = 2.2 * SCALE
    for x, y in centres if is_marked else ():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _write_texts(draw: Any, panel: Panel, x_axis: Axis, y_axis: Axis) -> None:
    """Write the title, the numbers of the ticks, and below the steps the splits."""
    middle, lowest = (x_axis.first + x_axis.last) // 2, CELL[1] - 12
    title = shorten_to(label_metric(panel.name), CELL[0] - 2 * RIGHT)
    is_wide = measure_width(title) > x_axis.last - x_axis.first
    _write(draw, (CELL[0] // 2 if is_wide else middle, TOP // 2), title, "mm")
    _write(draw, (middle, lowest), "step", "mm")
    for tick in x_axis.ticks:
        _write(draw, (round(x_axis.place(tick)), y_axis.first + 12), format_plain(tick), "mm")
    names, base = name_ticks(y_axis.ticks, x_axis.first - 8)
    for tick, name in zip(y_axis.ticks, names, strict=True):
        _write(draw, (x_axis.first - 6, round(y_axis.place(tick))), name, "rm")
    _write(draw, (4, lowest), base, "lm")
    right: float = x_axis.last
    for split in reversed(panel.lines):
        _write(draw, (right, lowest), split, "rm")
        right -= measure_width(split) + 20
        draw.line((right, lowest, right + 15, lowest), fill=COLOURS[split], width=2)
        right -= 10


def _write(draw: Any, place: tuple[float, float], text: str, anchor: str) -> None:
    font = choose_font(text, FONT_SIZE)
    draw.text(place, escape_missing(text), fill=TEXT, font=font, anchor=anchor)


def name_ticks(ticks: Sequence[float], width: int) -> tuple[list[str], str]:
    """Return the numbers of ticks, and the number that all are to be added to: "",
    unless they would be wider than `width` pixels.
    """
    names = [format_plain(tick) for tick in ticks]
    if all(measure_width(name) <= width for name in names):
        return names, ""
    return [f"+{tick - ticks[0]:.4g}" for tick in ticks], f"{ticks[0]:.10g} +"


def measure_width(text: str) -> float:
    """Return the width of a text in pixels."""
    return choose_font(text, FONT_SIZE).getlength(escape_missing(text))


def shorten_to(text: str, width: int) -> str:  # width in pixels
    """Return a text that is no wider, cut at its end."""
    if measure_width(text) <= width:
        return text
    while text and measure_width(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."

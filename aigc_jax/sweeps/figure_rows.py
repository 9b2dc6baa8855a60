"""The rows behind a figure, read from what is drawn on its axes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def extract_rows(figure: "Figure") -> list[dict]:
    """Return the points, lines, bars and error bars of a figure as rows.

    A row is {panel, series, kind, x, y, low, high}: the number of the panel from 1, the
    label in the legend, "line", "points", "bar", "band" or "error bar", and coordinates
    with 6 significant digits, as far as the kind has them. Text, images and lines
    across the axes are not among them.
    """
    return [
        {"panel": panel, "series": series, "kind": kind}
        | {name: _round(value) for name, value in coordinates.items()}
        for panel, axes in enumerate(figure.axes, 1)
        for series, kind, coordinates in _iterate_artists(axes)
    ]


def _round(value: Any) -> float | str | None:
    """Return a number of 6 significant digits; None for what is missing."""
    if value is None or value is np.ma.masked:
        return None
    return float(f"{float(value):.6g}")


def _iterate_artists(axes: Any) -> Iterator[tuple[str, str, dict]]:
    """Yield (series, kind, coordinates) of the artists of axes."""
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            yield from _iterate_points(line, "line", line.get_xydata())
    for found in axes.collections:
        yield from _iterate_collection(found)
    for bars in axes.containers:
        patches = getattr(bars, "patches", ())
        tops = [(b.get_x() + b.get_width() / 2, b.get_y() + b.get_height()) for b in patches]
        yield from _iterate_points(bars, "bar", tops)


def _iterate_collection(found: Any) -> Iterator[tuple[str, str, dict]]:
    """Yield (series, kind, coordinates) of points, error bars or a band."""
    from matplotlib.collections import LineCollection, PathCollection, PolyCollection

    if isinstance(found, PathCollection):
        yield from _iterate_points(found, "points", found.get_offsets())
    elif isinstance(found, LineCollection):
        for part in found.get_segments():
            (x, low), (_, high) = np.asarray(part)[[0, -1]]
            yield _name(found), "error bar", _point(x, None, low, high)
    elif isinstance(found, PolyCollection):
        for path in found.get_paths():
            yield from _iterate_points(found, "band", path.vertices)


def _iterate_points(artist: Any, kind: str, points: Any) -> Iterator[tuple[str, str, dict]]:
    """Yield (series, kind, coordinates) of points [N, 2]."""
    for x, y in np.ma.asarray(points):
        yield _name(artist), kind, _point(x, y)


def _point(x: Any, y: Any, low: Any = None, high: Any = None) -> dict:
    """Return the coordinates of a row."""
    return dict(x=x, y=y, low=low, high=high)


def _name(artist: Any) -> str:
    """Return the label of an artist in the legend; "" without one."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label

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
    from matplotlib.collections import LineCollection, PathCollection, PolyCollection

    for line in axes.lines:
        if line.get_transform() == axes.transData:
            for x, y in np.asarray(line.get_xydata()):
                yield _name(line), "line", _point(x, y)
    for found in axes.collections:
        if isinstance(found, PathCollection):
            for x, y in np.asarray(found.get_offsets()):
                yield _name(found), "points", _point(x, y)
        elif isinstance(found, LineCollection):
            for part in found.get_segments():
                (x, low), (_, high) = np.asarray(part)[[0, -1]]
                yield _name(found), "error bar", _point(x, None, low, high)
        elif isinstance(found, PolyCollection):
            for path in found.get_paths():
                for x, y in np.asarray(path.vertices):
                    yield _name(found), "band", _point(x, y)
    for bars in axes.containers:
        for bar in getattr(bars, "patches", ()):
            middle = bar.get_x() + bar.get_width() / 2
            yield _name(bars), "bar", _point(middle, bar.get_y() + bar.get_height())


def _point(x: Any, y: Any, low: Any = None, high: Any = None) -> dict:
    """Return the coordinates of a row."""
    return dict(x=x, y=y, low=low, high=high)


def _name(artist: Any) -> str:
    """Return the label of an artist in the legend; "" without one."""
    label = str(artist.get_label())
    return "" if label.startswith("_") else label

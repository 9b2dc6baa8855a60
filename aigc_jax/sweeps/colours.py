"""Colours of the arms of a sweep, in the figure and in all parts of a report."""

import colorsys

MOST_COLOURS = 20  # arms with a colour of their own
# Legible on white and on black.
COLOURS = (
    "#4269d0", "#ef9f18", "#ff725c", "#3cb8a0", "#3ca951", "#e876ad", "#a463f2", "#79a3ec",
    "#a87a5a", "#8a93a0",
)  # fmt: skip


def choose_colours(count: int) -> list[str]:  # "#rrggbb"
    """Return a colour for each of some lines, all different."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [_to_hex(colorsys.hls_to_rgb(i / count, 0.52, 0.6)) for i in range(count)]


def _to_hex(colour: tuple[float, float, float]) -> str:
    """Return red, green and blue from 0 to 1 as "#rrggbb"."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)

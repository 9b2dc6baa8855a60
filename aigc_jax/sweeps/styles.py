"""Styles of figures: size, fonts and lines for a screen, a paper or a slide."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = 10.0  # points: matplotlib's font size, which figures assume


class Style(NamedTuple):
    """A style of figures.

    Attributes:
      size: size of text in points, in place of BASE.
      least: the least size of text in points.
      width: inches of a figure of one column of panels; 0: that of the figure.
      wide: inches of a figure of several columns of panels.
      ratio: height by width; 0: that of the figure.
      lines: factor of the widths of lines and markers.
      dots: dots per inch of a .png.
      grows: whether notes below the axes add to the height.
    """

    size: float = BASE
    least: float = 0.0
    width: float = 0.0
    wide: float = 0.0
    ratio: float = 0.0
    lines: float = 1.0
    dots: int = 100
    grows: bool = False

    def scale(self, size: float) -> float:
        """Return the size in points of text that has `size` at BASE."""
        return max(self.least, size * self.size / BASE)

    def fit_size(self, size: tuple[float, float], panels: tuple[int, int]) -> tuple[float, float]:
        """Return the width and height in inches of a figure."""
        if not self.width:
            return size
        width = self.wide if panels[1] > 1 else self.width
        return width, width * (self.ratio or size[1] / size[0])


# In papers of two columns (ICML), a column is 3.25 inches wide, the page 6.75.
STYLES = {
    "plain": Style(),
    "paper": Style(size=8, least=6, width=3.25, wide=6.75, lines=0.8, dots=300, grows=True),
    "slide": Style(size=16, least=12, width=12, wide=12, ratio=9 / 16, lines=1.8, dots=150),
}


def apply_style(figure: "Figure", style: Style) -> None:
    """Scale the text, lines and markers of a drawn figure."""
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    if style == STYLES["plain"]:
        return
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            old: Any = axis.get_tick_params().get("labelsize")
            size = style.scale(old if isinstance(old, float | int) else BASE)
            axis.set_tick_params(which="both", labelsize=size)
    ticks_text = {id(t) for a in figure.axes for t in _tick_labels(a)}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in ticks_text:
            text.set_fontsize(style.scale(float(text.get_fontsize())))
    for line in figure.findobj(Line2D):
        if isinstance(line, Line2D):
            line.set_linewidth(line.get_linewidth() * style.lines)
            line.set_markersize(line.get_markersize() * style.lines)


def _tick_labels(axes: Any) -> list:
    """Return the labels of the ticks, whose size the parameters of ticks set."""
    return [*axes.get_xticklabels(which="both"), *axes.get_yticklabels(which="both")]

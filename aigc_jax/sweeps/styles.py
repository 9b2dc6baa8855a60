"""Styles of figures: size, fonts and lines for a screen, a paper or a slide."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = 10.0  # points: matplotlib's font size, which figures assume
NOTE = 7.0  # points of the notes below a figure
# Points from a point to its label, tried in this order where labels overlap.
OFFSETS = ((5, -9), (-16, 4), (-16, -9), (5, 14), (5, -19), (16, 0), (-28, 0), (5, 24), (5, -29))
LEGEND = 0.8  # text of legends by that of labels: they cover lines of a small figure


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

    @property
    def note_size(self) -> float:
        """Size in points of the notes below a figure."""
        return self.least or NOTE

    def parameters(self) -> dict[str, Any]:
        """Return matplotlib's parameters while a figure is drawn: titles are not larger
        than labels, since panels may be narrow.
        """
        if not self.least:
            return {}
        legend = max(self.least, LEGEND * self.size)
        return {"font.size": self.size, "axes.titlesize": self.size, "legend.fontsize": legend}

    def fit_size(self, size: tuple[float, float], panels: tuple[int, int]) -> tuple[float, float]:
        """Return the width and height in inches of a figure."""
        if not self.width:
            return size
        width = self.wide if panels[1] > 1 else self.width
        return width, width * (self.ratio or size[1] / size[0])


# In papers of two columns (ICML), a column is 3.25 inches wide, the page 6.75.
STYLES = {
    "plain": Style(),
    "paper": Style(size=8, least=7, width=3.25, wide=6.75, lines=0.8, dots=300, grows=True),
    "slide": Style(size=16, least=12, width=12, wide=12, ratio=9 / 16, lines=1.8, dots=150),
}


def apply_style(figure: "Figure", style: Style) -> None:
    """Fit the text, lines and markers of a figure that was drawn with the `parameters`
    of its style: sizes that it set itself are raised to the least one.
    """
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    if not style.least:
        return
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # later ticks are made at the first save
            old: Any = axis.get_tick_params().get("labelsize")
            size = max(style.least, old) if isinstance(old, float | int) else style.size
            axis.set_tick_params(which="both", labelsize=size)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and float(text.get_fontsize()) < style.least:
            text.set_fontsize(style.least)
    for line in figure.findobj(Line2D):
        if isinstance(line, Line2D):
            line.set_linewidth(line.get_linewidth() * style.lines)
            line.set_markersize(line.get_markersize() * style.lines)


def separate_labels(figure: "Figure") -> None:
    """Move labels of points that overlap: each takes the first of OFFSETS at which it
    covers no label before it.
    """
    from matplotlib.text import Annotation

    labels = [text for axes in figure.axes for text in axes.texts if isinstance(text, Annotation)]
    labels = [text for text in labels if text.get_text() and text.anncoords == "offset points"]
    if len(labels) < 2:
        return
    figure.draw_without_rendering()
    placed: list = []
    for label in labels:
        first = label.xyann
        for offset in (first, *OFFSETS):
            label.set_position(offset)
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in placed):
                break
        else:
            label.set_position(first)
            box = label.get_window_extent()
        placed.append(box)

"""Figures of the rows of a sweep or of other runs."""

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aigc_jax.media.glyphs import escape_figure
from aigc_jax.media.log_axes import label_log_axes
from aigc_jax.sweeps.colours import MOST_COLOURS, choose_colours
from aigc_jax.sweeps.curves import (
    Curve,
    collect_curves,
    find_best_curves,
    label_curves,
)
from aigc_jax.sweeps.evidence import Results, format_csv
from aigc_jax.sweeps.figure_rows import extract_rows
from aigc_jax.sweeps.presentation import escape_mathtext, shorten_middle
from aigc_jax.sweeps.statistics import compute_interval, compute_statistic
from aigc_jax.sweeps.styles import NOTE, STYLES, apply_style, separate_labels
from aigc_jax.sweeps.tables import parse_metric
from aigc_jax.utils.documents import write_atomically
from aigc_jax.utils.quantities import label_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("figure.png", "figure.pdf")
INSIDE = 16  # most lines of a legend inside the axes
NAMED = 60  # most lines of a legend next to the axes
DrawAxes = Callable[[Any], None]  # draws on matplotlib Axes, or on an array of them

CHARACTERS_PER_INCH = 18  # of the notes below a figure
MOST_CHARACTERS = 64  # of a label in the legend
LINE_STYLES = ("-", "--", "-.", ":")  # cycled if the colours of many lines are too similar


def draw_curves(results: Results, metric: str, axes: Any) -> None:  # metric: "split/name"
    """Plot a metric over steps: per arm a line of the statistic over its trials with a
    band of the error bar, and thin lines of single trials that are not in it, which end
    in a cross (`sweeps.curves`). The best arm's line is thicker.

    Args:
      results: the rows and all trials.
      metric: such as "valid/loss".
      axes: matplotlib Axes to draw on.
    """
    split, name = parse_metric(metric, results.rows, results.varied)
    curves = collect_curves(results, metric)
    best = find_best_curves(curves, metric, results)
    labels = [shorten_middle(label, MOST_CHARACTERS) for label in label_curves(curves, best)]
    for i, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        style = choose_line_style(i, len(curves))
        if len(curve.steps):
            width = 2.2 if i in best else 1.3
            options = style | dict(label=escape_mathtext(label), linewidth=width)
            draw_line_with_band(curve, results, options, axes)
        for trial, line in curve.others.items():
            x, y = zip(*sorted(line.items()), strict=True)
            thin = dict(color=style["color"], linewidth=0.6, alpha=0.7)
            cut = trial in curve.shown
            axes.plot(x, y, marker="" if cut else "x", markevery=[-1], markersize=4, **thin)
    label = escape_mathtext(label_metric(f"{split} {name}"))
    axes.set(xlabel="training step", ylabel=label)
    axes.grid(alpha=0.3)
    add_legend(axes)


def draw_line_with_band(curve: Curve, results: Results, line_options: dict, axes: Any) -> None:
    """Plot the statistic of a curve over its trials, with its error bar as a band.

    Args:
      curve: the curve, with at least one step.
      results: whose `view` names the statistic and the error bar.
      line_options: "color" and further keywords of a matplotlib line.
      axes: matplotlib Axes to draw on.
    """
    view = results.view
    centre = compute_statistic(curve.values, view.statistic)
    axes.plot(curve.steps, centre, marker=choose_marker(curve.steps), **line_options)
    ends: Any = compute_interval(curve.values, view.statistic, view.error_bar)
    if ends is not None:
        colour = line_options["color"]
        axes.fill_between(curve.steps, *ends, color=colour, alpha=0.25, linewidth=0)


def choose_marker(steps: Sequence | np.ndarray) -> str:  # "." for one point, else ""
    """Return a marker for a line of one point, which is invisible without, else ''."""
    return "." if len(steps) == 1 else ""


def choose_line_style(index: int, num_lines: int) -> dict[str, Any]:
    """Return the colour and the line style of line `index` of `num_lines` lines."""
    import matplotlib

    if num_lines <= MOST_COLOURS:
        colour: Any = choose_colours(num_lines)[index]
    else:
        colour = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, num_lines)[index])
    return dict(
        color=colour, linestyle=LINE_STYLES[index % len(LINE_STYLES)] if num_lines > INSIDE else "-"
    )


def choose_figure_size(num_lines: int) -> tuple[float, float]:  # width, height in inches
    """Return the size in inches of a figure with space for a legend of many lines."""
    if num_lines <= INSIDE or num_lines > NAMED:
        return 6, 4
    return 7 + 2.5 * count_legend_columns(num_lines), 6


def count_legend_columns(num_lines: int) -> int:
    """Return the number of columns of a legend, with 30 lines per column."""
    return -(-num_lines // 30)


def add_legend(axes: Any) -> None:
    """Add a legend inside the axes, next to the axes if it is long, or only the number
    of lines if it would have more than NAMED.
    """
    labels = axes.get_legend_handles_labels()[1]
    if not labels:
        return
    if len(labels) <= INSIDE:
        axes.legend(fontsize=7)
    elif len(labels) <= NAMED:
        axes.legend(
            fontsize=6,
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            ncols=count_legend_columns(len(labels)),
        )
    else:
        axes.set_title(
            f"{len(labels)} lines, from the first (dark) to the last (light) of the table",
            fontsize=8,
        )


def preload_matplotlib() -> None:
    """Import the modules that `save_figure` needs, which takes half a second."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.figure  # noqa: F401


class Drawing(NamedTuple):
    """A figure that is not drawn yet.

    Attributes:
      draw: (axes) -> None, which draws.
      size: width and height in inches.
      panels: rows and columns; with several panels, `draw` gets an array of axes.
      notes: text below the figure, wrapped to its width.
      tabulate: () -> the rows behind the figure; None: what is drawn
        (`figure_rows.extract_rows`).
      style: a key of `styles.STYLES`.
    """

    draw: DrawAxes
    size: tuple[float, float] = (6, 4)
    panels: tuple[int, int] = (1, 1)
    notes: Sequence[str] = ()
    tabulate: Callable[[], list[dict]] | None = None
    style: str = "plain"


def make_figure(drawing: Drawing) -> "Figure":
    """Return a matplotlib Figure, with notes below."""
    import matplotlib
    from matplotlib.figure import Figure

    style = STYLES[drawing.style]
    width, height = style.fit_size(drawing.size, drawing.panels)
    per_line = int(CHARACTERS_PER_INCH * width * NOTE / style.note_size)
    notes = textwrap.wrap(" ".join(map(escape_mathtext, drawing.notes)), per_line)
    if style.grows:  # the axes keep their height
        height += len(notes) * style.note_size * 1.3 / 72
    parameters: Any = style.parameters()
    with matplotlib.rc_context(parameters):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=style.dots)
        drawing.draw(figure.subplots(*drawing.panels))
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=style.note_size, x=0.01, ha="left")
    apply_style(figure, style)
    label_log_axes(figure)
    escape_figure(figure)
    separate_labels(figure)
    return figure


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure to a .png or .pdf; same rows, same bytes."""
    buffer, kind = io.BytesIO(), path.suffix[1:]
    metadata: dict | None = dict(CreationDate=None) if kind == "pdf" else None
    figure.savefig(buffer, format=kind, metadata=metadata)
    write_atomically(path, buffer.getvalue())


def save_table_and_figures(
    folder: Path, table: str, drawing: Drawing
) -> None:  # table.md, figure.png, figure.pdf, figure.csv
    """Write table.md, the figure as .png and .pdf, and the rows behind it as .csv.

    Args:
      folder: the directory, which exists.
      table: the contents of table.md.
      drawing: the figure.
    """
    write_atomically(folder / "table.md", table)
    figure = make_figure(drawing)
    rows = drawing.tabulate() if drawing.tabulate else extract_rows(figure)
    for name in FIGURES:
        save_figure(folder / name, figure)
    write_atomically(folder / "figure.csv", format_csv(rows))

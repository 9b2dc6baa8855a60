"""Figures of the rows of a sweep or of other runs."""

import io
import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.tables import (
    format_cell,
    format_trials,
    group_trials_by_values,
    parse_metric,
    select_comparable_trials,
    shorten_keys,
)
from aigc_jax.utils.documents import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSIDE = 16  # most lines of a legend inside the axes
NAMED = 60  # most lines of a legend next to the axes
DrawAxes = Callable[[Any], None]  # draws on matplotlib Axes, or on an array of them

CHARACTERS_PER_INCH = 18  # of the notes below a figure
LINE_STYLES = ("-", "--", "-.", ":")  # cycled if the colours of many lines are too similar


def extract_curves(
    rows: list[dict], trial_names: Collection[str], split: str, metric_name: str
) -> dict[str, dict[int, float]]:  # {trial: {step: value}}
    """Return {trial: {step: value}} of the trials that have any value of a metric.

    Args:
      rows: rows of any trials.
      trial_names: the trials to include.
      split: the split of the metric, such as "valid".
      metric_name: the name of the metric, such as "loss".
    """
    out: dict[str, dict] = {}
    for row in rows:
        if (
            row["trial"] in trial_names
            and row["split"] == split
            and row.get(metric_name) is not None
        ):
            out.setdefault(row["trial"], {})[row["step"]] = row[metric_name]
    return out


def align_curves(
    curves: dict[str, dict[int, float]], trial_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:  # steps [S] that all have, values [S, T]
    """Return the steps that all named trials have, and the values [steps, trials]."""
    steps = (
        sorted(set.intersection(*(set(curves[name]) for name in trial_names)))
        if trial_names
        else []
    )
    values = [[curves[name][step] for name in trial_names] for step in steps]
    return np.array(steps), np.array(values).reshape(len(steps), len(trial_names))


def draw_curves(results: Results, metric: str, axes: Any) -> None:  # metric: "split/name"
    """Plot a metric over steps: per combination of varied values, a line of the mean
    over seeds with a band of one standard error, and a thin line for each trial that
    ended before the others.

    Args:
      results: the rows and all trials.
      metric: such as "valid/loss".
      axes: matplotlib Axes to draw on.
    """
    split, name = parse_metric(metric, results.rows, results.varied)
    lines = group_trials_by_values(results.trials, results.varied)
    for number, (values, members) in enumerate(lines.items()):
        own = extract_curves(results.rows, set(members), split, name)
        ends = {trial: dict(step=max(line)) for trial, line in own.items()}
        complete = select_comparable_trials(results, ends, members)
        steps, y = align_curves(own, complete)
        style = choose_line_style(number, len(lines))
        count = (
            f"{len(complete)} of {format_trials(len(members))}"
            if len(complete) < len(members)
            else ""
        )
        pairs = zip(shorten_keys(results.varied), map(format_cell, values), strict=True)
        label = ", ".join(f"{key} = {value}" for key, value in pairs)
        label = (
            f"{label} ({count})"
            if label and count
            else label or count or format_trials(len(members))
        )
        if len(steps):
            draw_mean_with_error(steps, y, style | dict(label=label), axes)
        for shorter in (own[trial] for trial in own if trial not in complete):
            x, line = zip(*sorted(shorter.items()), strict=True)
            axes.plot(
                x, line, color=style["color"], linewidth=0.6, alpha=0.7, marker=choose_marker(x)
            )
    axes.set(xlabel="step", ylabel=f"{split} {name}")
    axes.grid(alpha=0.3)
    add_legend(axes)


def draw_mean_with_error(
    steps: np.ndarray, values: np.ndarray, line_options: dict, axes: Any
) -> None:  # steps [S], values [S, trials]
    """Plot the mean over trials, with its standard error.

    Args:
      steps: [S], the horizontal axis.
      values: [S, T], the values of T trials; of one trial, no error is drawn.
      line_options: "color" and further keywords of a matplotlib line.
      axes: matplotlib Axes to draw on.
    """
    mean, count = values.mean(1), values.shape[1]
    axes.plot(steps, mean, linewidth=1.3, marker=choose_marker(steps), **line_options)
    if count > 1:
        error = values.std(1, ddof=1) / math.sqrt(count)
        axes.fill_between(
            steps, mean - error, mean + error, color=line_options["color"], alpha=0.25, linewidth=0
        )


def choose_marker(steps: Sequence | np.ndarray) -> str:  # "." for one point, else ""
    """Return a marker for a line of one point, which is invisible without, else ''."""
    return "." if len(steps) == 1 else ""


def choose_line_style(index: int, num_lines: int) -> dict[str, Any]:
    """Return the colour and the line style of line `index` of `num_lines` lines."""
    import matplotlib

    if num_lines == 1:
        return dict(color="tab:blue")
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


def make_figure(
    draw: DrawAxes,
    size: tuple[float, float] = (6, 4),
    panels: tuple[int, int] = (1, 1),
    notes: Sequence[str] = (),
) -> "Figure":
    """Return a matplotlib Figure, with notes below.

    Args:
      draw: (axes) -> None, which draws.
      size: width and height in inches.
      panels: rows and columns; with several panels, axes is an array.
      notes: text below the figure, wrapped to its width.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=100)
    draw(figure.subplots(*panels))
    if notes:
        text = "\n".join(textwrap.wrap(" ".join(notes), int(CHARACTERS_PER_INCH * size[0])))
        figure.supxlabel(text, fontsize=7, x=0.01, ha="left")
    return figure


def save_figure(path: Path, draw: DrawAxes, **figure_options: Any) -> None:  # of make_figure
    """Write the figure of `make_figure` to a .png or .pdf; same rows, same bytes."""
    buffer, kind = io.BytesIO(), path.suffix[1:]
    metadata = dict(CreationDate=None) if kind == "pdf" else None
    make_figure(draw, **figure_options).savefig(buffer, format=kind, metadata=metadata)
    write_atomically(path, buffer.getvalue())


def save_table_and_figures(
    folder: Path,
    table: str,
    draw: DrawAxes,
    figure_names: Sequence[str] = ("figure.png", "figure.pdf"),
    **figure_options: Any,
) -> None:  # table.md and figure_names in folder
    """Write table.md and the figure files.

    Args:
      folder: the directory, which exists.
      table: the contents of table.md.
      draw: (axes) -> None, which draws.
      figure_names: names of the figure files, which end in .png or .pdf.
      figure_options: keywords of `make_figure`.
    """
    write_atomically(folder / "table.md", table)
    for name in figure_names:
        save_figure(folder / name, draw, **figure_options)

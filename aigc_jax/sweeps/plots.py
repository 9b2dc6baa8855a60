"""Figures of the rows of a sweep or of other runs."""

import io
import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.tables import (
    comparable_trials,
    format_value,
    group_by_values,
    parts_of,
    short_keys,
    with_plural,
)
from aigc_jax.utils.documents import write_atomically

INSIDE = 16  # most lines of a legend inside the axes
NAMED = 60  # most lines of a legend next to the axes
CHARACTERS_PER_INCH = 18  # of the notes below a figure
LINE_STYLES = ("-", "--", "-.", ":")  # cycled if the colours of many lines are too similar


def trial_curves(
    rows: list[dict], names: Collection[str], split: str, name: str
) -> dict[str, dict]:
    """Return {trial: {step: value}} of the trials that have any value of a metric."""
    out: dict[str, dict] = {}
    for row in rows:
        if row["trial"] in names and row["split"] == split and row.get(name) is not None:
            out.setdefault(row["trial"], {})[row["step"]] = row[name]
    return out


def mean_curve(curves: dict[str, dict], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps that all named trials have, and the values [steps, trials]."""
    steps = sorted(set.intersection(*(set(curves[name]) for name in names))) if names else []
    values = [[curves[name][step] for name in names] for step in steps]
    return np.array(steps), np.array(values).reshape(len(steps), len(names))


def draw_curves(results: Results, metric: str, axes: Any) -> None:
    """Plot a metric over steps: per combination of varied values, a line of the mean
    over seeds with a band of one standard error, and a thin line for each trial that
    ended before the others.
    """
    split, name = parts_of(metric, results.rows, results.varied)
    lines = group_by_values(results.trials, results.varied)
    for number, (values, members) in enumerate(lines.items()):
        own = trial_curves(results.rows, set(members), split, name)
        ends = {trial: dict(step=max(line)) for trial, line in own.items()}
        complete = comparable_trials(results, ends, members)
        steps, y = mean_curve(own, complete)
        style = line_style(number, len(lines))
        count = (
            f"{len(complete)} of {with_plural(len(members))}"
            if len(complete) < len(members)
            else ""
        )
        pairs = zip(short_keys(results.varied), map(format_value, values), strict=True)
        label = ", ".join(f"{key} = {value}" for key, value in pairs)
        label = (
            f"{label} ({count})" if label and count else label or count or with_plural(len(members))
        )
        if len(steps):
            draw_mean(steps, y, style | dict(label=label), axes)
        for shorter in (own[trial] for trial in own if trial not in complete):
            x, line = zip(*sorted(shorter.items()), strict=True)
            axes.plot(x, line, color=style["color"], linewidth=0.6, alpha=0.7, marker=marker_of(x))
    axes.set(xlabel="step", ylabel=f"{split} {name}")
    axes.grid(alpha=0.3)
    add_legend(axes)


def draw_mean(steps: np.ndarray, y: np.ndarray, style: dict, axes: Any) -> None:
    """Plot the mean of y [steps, trials] over trials, with its standard error."""
    mean, count = y.mean(1), y.shape[1]
    axes.plot(steps, mean, linewidth=1.3, marker=marker_of(steps), **style)
    if count > 1:
        error = y.std(1, ddof=1) / math.sqrt(count)
        axes.fill_between(
            steps, mean - error, mean + error, color=style["color"], alpha=0.25, linewidth=0
        )


def marker_of(steps: Sequence | np.ndarray) -> str:
    """Return a marker for a line of one point, which is invisible without, else ''."""
    return "." if len(steps) == 1 else ""


def line_style(number: int, count: int) -> dict:
    """Return the colour and the line style of line `number` of `count` lines."""
    import matplotlib

    if count == 1:
        return dict(color="tab:blue")
    colour = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count)[number])
    return dict(
        color=colour, linestyle=LINE_STYLES[number % len(LINE_STYLES)] if count > INSIDE else "-"
    )


def size_for(lines: int) -> tuple[float, float]:
    """Return the size in inches of a figure with space for a legend of many lines."""
    if lines <= INSIDE or lines > NAMED:
        return 6, 4
    return 7 + 2.5 * legend_columns(lines), 6


def legend_columns(lines: int) -> int:
    """Return the number of columns of a legend, with 30 lines per column."""
    return -(-lines // 30)


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
            ncols=legend_columns(len(labels)),
        )
    else:
        axes.set_title(
            f"{len(labels)} lines, from the first (dark) to the last (light) of the table",
            fontsize=8,
        )


def import_matplotlib() -> None:
    """Import the modules that `save_figure` needs, which takes half a second."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.figure  # noqa: F401


def draw_figure(
    figure: Callable,
    size: tuple[float, float] = (6, 4),
    panels: tuple[int, int] = (1, 1),
    notes: Sequence[str] = (),
) -> Any:
    """Return a matplotlib Figure that `figure(axes)` draws, with notes below.

    Args:
      size: width and height in inches.
      panels: rows and columns; with several panels, axes is an array.
    """
    from matplotlib.figure import Figure

    drawing = Figure(figsize=size, layout="constrained", dpi=100)
    figure(drawing.subplots(*panels))
    if notes:
        text = "\n".join(textwrap.wrap(" ".join(notes), int(CHARACTERS_PER_INCH * size[0])))
        drawing.supxlabel(text, fontsize=7, x=0.01, ha="left")
    return drawing


def save_figure(path: Path, figure: Callable, **more: Any) -> None:
    """Write the figure of `draw_figure` to a .png or .pdf; same rows, same bytes."""
    buffer, kind = io.BytesIO(), path.suffix[1:]
    metadata = dict(CreationDate=None) if kind == "pdf" else None
    draw_figure(figure, **more).savefig(buffer, format=kind, metadata=metadata)
    write_atomically(path, buffer.getvalue())


def save_results(
    folder: Path,
    table: str,
    figure: Callable,
    names: Sequence[str] = ("figure.png", "figure.pdf"),
    **more: Any,
) -> None:
    """Write table.md and the figure files."""
    write_atomically(folder / "table.md", table)
    for name in names:
        save_figure(folder / name, figure, **more)

"""Charts of a report, as data that page.js turns into Plotly's traces.

Every number of a chart is one of rows.csv, or the statistic or error bar of several, in
the digits of float32. A page has one chart for each metric with more than one step; of
many arms, the lines are grouped by rank.
"""

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.sweeps.bare_rows import NO_SPLIT
from aigc_jax.sweeps.colours import MOST_COLOURS, choose_colours
from aigc_jax.sweeps.curves import align_curves
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.pages.summary import Arm, Summary
from aigc_jax.sweeps.presentation import Presentation
from aigc_jax.sweeps.statistics import compute_interval, compute_statistic
from aigc_jax.sweeps.tables import NOT_METRICS
from aigc_jax.utils.quantities import METRIC_UNITS, format_count
from aigc_jax.utils.terminal import escape_controls

RANKS = ("best fifth", "second fifth", "third fifth", "fourth fifth", "last fifth")
VALUES = ("lowest fifth", "second fifth", "third fifth", "fourth fifth", "highest fifth")
MOST_CHARTS = 60
MOST_VALUES = 100_000  # of all charts; curves with more are thinned
MOST_LETTERS = 120  # of a name
RANK_COLOURS = ("#3ca951", "#3cb8a0", "#4269d0", "#ef9f18", "#ff725c")

Curves = dict[str, dict[int, float]]  # {trial: {step: value}}


class Group(NamedTuple):
    """Lines of one colour, which the legend isolates together."""

    label: str
    colour: str
    arms: list[int]


def shorten(value: object, letters: int = MOST_LETTERS) -> str:
    """Return untrusted text on one line, without controls and not too long."""
    text = str(value)
    cut = text if len(text) <= letters else text[: letters - 1] + "\u2026"
    return escape_controls(cut).replace("\n", "\\n")


def plain_label(value: object) -> str:
    """Return untrusted text for a label of Plotly, which reads tags and entities."""
    return html.escape(shorten(value), quote=False)


def round_float32(value: float | None) -> float | None:
    """Return a number with the seven digits that float32 holds; None if not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.7g}")


def group_arms(summary: Summary, best: str, best_mode: str) -> tuple[list[Group], str]:
    """Return the groups of the legend, and a note about them: each arm, or of more than
    MOST_COLOURS fifths by the rank of a metric, and the arms without a value.

    Args:
      summary: the arms.
      best: ranks the arms, such as "valid/loss"; a metric that no arm has: the first.
      best_mode: whether its best value is the "min" or the "max".
    """
    arms = summary.arms
    if len(arms) <= MOST_COLOURS:
        colours = choose_colours(len(arms))
        return [Group(shorten(a.label), colours[i], [i]) for i, a in enumerate(arms)], ""
    name = best.partition("/")[2]
    is_ranked = name in summary.names
    column = summary.names.index(name) if is_ranked else 0
    means = [arm.cells[column].centre if arm.cells else None for arm in arms]
    sign = -1 if is_ranked and best_mode == "max" else 1
    ranked = [i for _, i in sorted((sign * m, i) for i, m in enumerate(means) if m is not None)]
    parts = [part.tolist() for part in np.array_split(np.array(ranked, int), len(RANKS))]
    labels = RANKS if is_ranked else VALUES
    groups = [Group(*both) for both in zip(labels, RANK_COLOURS, parts, strict=True)]
    groups.append(
        Group("without a value", "#8a93a0", [i for i, m in enumerate(means) if m is None])
    )
    shown = f"{summary.split} {summary.names[column]}" if summary.names else "no metric"
    note = f"{len(arms)} combinations of values, in fifths by the rank of {shown}."
    return [group for group in groups if group.arms], note


def index_curves(rows: list[dict], varied: Sequence[str]) -> dict[tuple[str, str], Curves]:
    """Return {(split, metric): {trial: {step: value}}} of all numbers of the rows, as
    `curves.extract_curves` does of one metric.
    """
    skipped = {*NOT_METRICS, *varied}
    out: dict[tuple[str, str], Curves] = {}
    for row in rows:
        for name, value in row.items():
            if name not in skipped and isinstance(value, (int, float)):
                curves = out.setdefault((row["split"], name), {})
                curves.setdefault(row["trial"], {})[row["step"]] = float(value)
    return out


def thin_steps(curves: Curves, every: int) -> Curves:
    """Return curves with every n-th step, the first and the last included."""
    if every == 1:
        return curves
    out: Curves = {}
    for trial, curve in curves.items():
        steps = sorted(curve)
        picked = {*steps[::every], steps[-1]}
        out[trial] = {step: curve[step] for step in steps if step in picked}
    return out


def make_curves(results: Results, summary: Summary) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the charts of all metrics with more than one step, and notes about what
    they leave out.
    """
    found = {
        key: curves
        for key, curves in index_curves(results.rows, results.varied).items()
        if any(len(curve) > 1 for curve in curves.values())
    }
    chosen = dict(list(sort_charts(found, results).items())[:MOST_CHARTS])
    notes = []
    if len(found) > len(chosen):
        notes.append(f"Charts of {len(chosen)} of {len(found)} metrics; rows.csv has all.")
    total = sum(len(curve) for curves in chosen.values() for curve in curves.values())
    every = max(1, -(-total // MOST_VALUES))
    if every > 1:
        notes.append(
            f"{format_count(total, 'value')}: single trials are drawn at every {every}th row, "
            "and means over these; rows.csv has all."
        )
    order = {trial["trial"]: i for i, trial in enumerate(results.trials)}
    return [
        make_chart((split, name), thin_steps(curves, every), summary.arms, order, results.view)
        for (split, name), curves in chosen.items()
    ], notes


def sort_charts(
    found: dict[tuple[str, str], Curves], results: Results
) -> dict[tuple[str, str], Curves]:
    """Return charts with the metric of the results first, then config.best_metric, then
    those of the valid split.
    """
    first = [results.metric.replace("test/", "valid/", 1), results.best]
    splits = ("valid", "test", "train")

    def rank(key: tuple[str, str]) -> tuple[int, int]:
        name = "/".join(key)
        place = first.index(name) if name in first else len(first)
        return place, splits.index(key[0]) if key[0] in splits else 0

    return dict(sorted(found.items(), key=lambda item: rank(item[0])))


def make_chart(
    metric: tuple[str, str],
    curves: Curves,
    arms: list[Arm],
    order: dict[str, int],
    view: Presentation,
) -> dict[str, Any]:
    """Return the chart of a metric (split, name): for each arm the statistic and the
    error bar of its comparable trials at the steps that all have, and the curve of
    every trial.
    """
    split, name = metric
    means, singles = [], []
    for number, arm in enumerate(arms):
        own = [trial for trial in arm.comparable if trial in curves]
        steps, y = align_curves(curves, own)
        if len(steps):
            means.append(make_mean(number, steps, y, view))
        for trial in arm.members:
            if trial in curves:
                singles.append(make_line(number, curves[trial], order[trial], trial in own))
    return dict(
        name=plain_label(f"{split} {name}".removeprefix(f"{NO_SPLIT} ")),
        unit=METRIC_UNITS.get(name, ""),
        means=means,
        trials=singles,
        positive=all(v > 0 for curve in curves.values() for v in curve.values()),
    )


def make_mean(
    arm: int, steps: np.ndarray, values: np.ndarray, view: Presentation
) -> dict[str, Any]:
    """Return the statistic of values [S, T] over T trials at steps [S], and the ends of
    its error bar.
    """
    numbers = lambda found: [round_float32(v) for v in np.asarray(found).tolist()]
    centre = compute_statistic(values, view.statistic)
    line = dict(arm=arm, n=values.shape[1], x=steps.tolist(), y=numbers(centre))
    ends = compute_interval(values, view.statistic, view.error_bar)
    if ends is not None:
        line |= dict(low=numbers(ends[0]), high=numbers(ends[1]))
    return line


def make_line(arm: int, curve: dict[int, float], trial: int, complete: bool) -> dict[str, Any]:
    """Return the curve of one trial; `ended` marks one that no mean contains."""
    steps = sorted(curve)
    line = dict(arm=arm, trial=trial, x=steps, y=[round_float32(curve[step]) for step in steps])
    return line if complete else line | dict(ended=True)


def share_steps(charts: list[dict[str, Any]]) -> list[list[int]]:
    """Replace the steps of each line, in place, by an index into the returned list of
    different steps.
    """
    grids: dict[tuple, int] = {}
    for chart in charts:
        for line in (*chart["means"], *chart["trials"]):
            line["x"] = grids.setdefault(tuple(line["x"]), len(grids))
    return [list(grid) for grid in grids]


def make_axes(results: Results) -> list[dict[str, Any]]:
    """Return the axes of the varied keys that have more than one value: the values of
    each trial, and a linear or logarithmic scale, or the order of texts.
    """
    axes = []
    for key in results.varied:
        values = [trial.get(key) for trial in results.trials]
        if len(set(map(str, values))) > 1:
            axes.append(make_axis(key, values))
    return axes


def make_axis(name: str, values: list[Any]) -> dict[str, Any]:
    """Return one axis (`make_axes`)."""
    is_number = [isinstance(v, (int, float)) and math.isfinite(v) for v in values]
    label = plain_label(name.removeprefix("config."))
    if all(is_number):
        smallest, largest = min(values), max(values)
        scale = "log" if smallest > 0 and largest / smallest >= 10 else "linear"
        return dict(name=label, scale=scale, values=[round_float32(v) for v in values])
    return dict(name=label, scale="text", values=[plain_label(v) for v in values])

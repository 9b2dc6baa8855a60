"""The curves of a figure: of each arm the statistic over its trials, its error bar, and
the trials that are not in it. Depends on rows alone.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.presentation import find_direction, name_arm
from aigc_jax.sweeps.statistics import compute_interval, compute_statistic
from aigc_jax.sweeps.tables import (
    MOST,
    format_trials,
    group_trials_by_values,
    select_comparable_trials,
)
from aigc_jax.utils.errors import join_names
from aigc_jax.utils.quantities import format_count

Lines = dict[str, dict[int, float]]  # {trial: {step: value}}


class Curve(NamedTuple):
    """The curve of an arm.

    Attributes:
      arm: values of the varied keys.
      name: of the arm, such as "lr = 0.001"; "" without varied keys.
      num_trials: trials of the arm, with those that have no value.
      shown: the trials in the statistic.
      steps: steps [S] that they have in common.
      values: their values [S, T].
      others: what is drawn of single trials: those that are not in the statistic, and
        of those that are the steps beyond the last common one.
      num_cut: trials in the statistic that have steps beyond the last common one.
      num_gaps: steps before the last common one that some of them lack.
    """

    arm: tuple
    name: str
    num_trials: int
    shown: list[str]
    steps: np.ndarray
    values: np.ndarray
    others: Lines
    num_cut: int = 0
    num_gaps: int = 0


def extract_curves(
    rows: list[dict], trial_names: Collection[str], split: str, metric_name: str
) -> Lines:  # {trial: {step: value}}
    """Return {trial: {step: value}} of the trials that have any value of a metric.

    Args:
      rows: rows of any trials.
      trial_names: the trials to include.
      split: the split of the metric, such as "valid".
      metric_name: the name of the metric, such as "loss".
    """
    out: Lines = {}
    for row in rows:
        if (
            row["trial"] in trial_names
            and row["split"] == split
            and row.get(metric_name) is not None
        ):
            out.setdefault(row["trial"], {})[row["step"]] = row[metric_name]
    return out


def align_curves(
    curves: Lines, trial_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:  # steps [S] that all have, values [S, T]
    """Return the steps that all named trials have, and the values [steps, trials]."""
    steps = (
        sorted(set.intersection(*(set(curves[name]) for name in trial_names)))
        if trial_names
        else []
    )
    values = [[curves[name][step] for name in trial_names] for step in steps]
    return np.array(steps), np.array(values).reshape(len(steps), len(trial_names))


def collect_curves(results: Results, metric: str) -> list[Curve]:  # metric: "split/name"
    """Return the curve of each arm, in the order of the trials.

    The statistic is over the trials that are done, up to the last step that they have
    in common; before any is done, over those that are the longest so far.
    """
    split, _, name = metric.partition("/")
    arms = group_trials_by_values(results.trials, results.varied)
    status = {trial["trial"]: trial["status"] for trial in results.trials}
    lines = extract_curves(results.rows, status, split, name)
    out = []
    for arm, members in arms.items():
        own = {trial: lines[trial] for trial in members if trial in lines}
        shown = [trial for trial in own if status[trial] == "done"]
        if not shown:
            ends = {trial: dict(step=max(line)) for trial, line in own.items()}
            shown = select_comparable_trials(results, ends, members)
        title = name_arm(arm, results.varied)
        out.append(_make_curve(arm, title, len(members), own, shown))
    return out


def _make_curve(arm: tuple, name: str, num_trials: int, lines: Lines, shown: list[str]) -> Curve:
    """Return a curve of the `lines` of its trials; those in `shown` are aligned."""
    steps, values = align_curves(lines, shown)
    last = steps[-1] if len(steps) else -1
    others = {trial: line for trial, line in lines.items() if trial not in shown}
    longer = {trial: lines[trial] for trial in shown if max(lines[trial]) > last}
    for trial, line in longer.items():  # from the last common step on
        others[trial] = {step: value for step, value in line.items() if step >= last}
    before = {step for trial in shown for step in lines[trial] if step < last}
    gaps = len(before - set(steps.tolist()))
    return Curve(arm, name, num_trials, shown, steps, values, others, len(longer), gaps)


def label_curves(curves: Sequence[Curve], best: Sequence[int]) -> list[str]:
    """Return the labels of the curves: the arm, the number of trials where it differs
    between arms or some are missing, and whether the arm is the best.
    """
    counts = {len(curve.shown) for curve in curves}
    out = []
    for i, curve in enumerate(curves):
        count = ""
        if len(curve.shown) < curve.num_trials:
            count = f"{len(curve.shown)} of {format_trials(curve.num_trials)}"
        elif len(counts) > 1:
            count = format_trials(curve.num_trials)
        marks = ", ".join(filter(None, [count, "best" * (i in best)]))
        label = f"{curve.name} ({marks})" if curve.name and marks else curve.name or marks
        out.append(label or format_trials(curve.num_trials))
    return out


def find_best_curves(curves: Sequence[Curve], metric: str, results: Results) -> list[int]:
    """Return the curves with the best statistic at their last steps: several if equal,
    none if the metric's direction is unknown or fewer than two have a value.
    """
    direction = find_direction(metric.partition("/")[2], results.best, results.mode)
    ends = {
        i: float(compute_statistic(curve.values[-1], results.view.statistic))
        for i, curve in enumerate(curves)
        if len(curve.steps)
    }
    if not direction or len(ends) < 2:
        return []
    best = dict(min=min, max=max)[direction](ends.values())
    return [i for i, value in ends.items() if value == best]


def describe_curves(curves: Sequence[Curve], metric: str, results: Results) -> list[str]:
    """Return notes on what lines and bands are, on the best, and on what is cut."""
    statistic, error_bar = results.view.describe()
    counts = sorted({len(curve.shown) for curve in curves if len(curve.steps)})
    out = []
    if counts and counts[-1] > 1:
        several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        out.append(f"Lines: {statistic} over n = {several} trials; bands: {error_bar}.")
    best = find_best_curves(curves, metric, results)
    if best:
        direction = find_direction(metric.partition("/")[2], results.best, results.mode)
        names = join_names((curves[i].name for i in best), MOST)
        word = dict(min="lowest", max="highest")[direction]
        out.append(f"Best ({word} at the last step): {names}.")
    for curve in curves:
        of_arm = f" of {curve.name}" if curve.name else ""
        if curve.num_cut:
            out.append(
                f"The line{of_arm} is cut to the common length: step {curve.steps[-1]:,}"
                if len(curve.steps)
                else f"The trials{of_arm} have no step in common"
            )
            out[-1] += f"; {format_trials(curve.num_cut)} beyond it as thin lines."
        if curve.num_gaps:
            missing = format_count(curve.num_gaps, "step")
            out.append(f"The line{of_arm} lacks {missing} that not all its trials have.")
    if any(trial not in curve.shown for curve in curves for trial in curve.others):
        out.append("Thin lines that end in a cross are trials that are not in the lines.")
    return out


def tabulate_curves(curves: Sequence[Curve], metric: str, results: Results) -> list[dict]:
    """Return the rows behind the curves: for each arm and step the statistic, the ends
    of the error bar and n, and the values of the trials that are drawn as thin lines.
    """
    keys, view = results.varied, results.view
    out = []
    for curve in curves:
        arm = dict(panel="curves", **dict(zip(keys, curve.arm, strict=True)))
        ends: Any = compute_interval(curve.values, view.statistic, view.error_bar)
        centre = compute_statistic(curve.values, view.statistic) if len(curve.steps) else []
        for i, step in enumerate(curve.steps.tolist()):
            row = arm | dict(trial=None, step=step, metric=metric, statistic=view.statistic)
            row |= dict(value=float(centre[i]), low=None, high=None, n=len(curve.shown))
            if ends is not None:
                row |= dict(low=float(ends[0][i]), high=float(ends[1][i]))
            out.append(row | dict(interval=view.error_bar if ends is not None else None))
        for trial, line in curve.others.items():
            for step, value in sorted(line.items()):
                row = arm | dict(trial=trial, step=step, metric=metric, statistic="value")
                out.append(row | dict(value=value, low=None, high=None, n=1, interval=None))
    return out

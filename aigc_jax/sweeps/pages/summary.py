"""The numbers of a report's tables: means over seeds as in table.md, the best of each
metric, and differences to a baseline over common seeds.
"""

import math
from collections.abc import Collection as Container
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from aigc_jax.sweeps import tables
from aigc_jax.sweeps.evidence import Results
from aigc_jax.utils.quantities import format_count

CONFIDENCE = 0.95  # of the intervals of differences


class Cell(NamedTuple):
    """A metric of an arm: the mean of its comparable trials."""

    text: str  # as in table.md
    mean: float | None
    values: dict[Any, float]  # {seed, or the trial without one: value}
    is_best: bool = False


class Arm(NamedTuple):
    """The trials with equal values of the varied keys."""

    label: str
    values: tuple
    members: list[str]
    comparable: list[str]  # the trials of the mean
    num_trials: str  # "2 of 3, 1 diverged"
    step: str  # of the last rows; "" without one
    cells: list[Cell]


class Summary(NamedTuple):
    """The rows of table.md."""

    keys: list[str]  # short names of the varied keys
    split: str
    names: list[str]  # metrics
    arms: list[Arm]
    has_steps: bool  # whether last steps differ


class Difference(NamedTuple):
    """The mean difference to the baseline over common seeds, with its interval."""

    mean: float
    low: float | None  # None for a single seed
    high: float | None
    n: int


def summarize_arms(results: Results, best_mode: str = "min") -> Summary:
    """Return the numbers of `tables.format_summary_table`, with the best mean of each
    metric whose direction is known: that of the config's best_metric in any split.

    Args:
      results: the rows and all trials.
      best_mode: "min" or "max", of `results.best`.
    """
    rows, varied, metric = results.rows, results.varied, results.metric
    split = tables.choose_table_split(rows, metric)
    names = tables.list_metric_names(rows, split, varied)
    first = metric.partition("/")[2]
    names = [first, *(n for n in names if n != first)] if first in names else names
    names, last = names[: tables.MOST], tables.last_rows(rows, split)
    seeds = {trial["trial"]: trial.get("seed", trial["trial"]) for trial in results.trials}
    arms = []
    for values, members in tables.group_trials_by_values(results.trials, varied).items():
        own = tables.select_comparable_trials(results, last, members)
        n = f"{len(own)}" if len(own) == len(members) else f"{len(own)} of {len(members)}"
        cells = [make_cell(name, own, last, seeds) for name in names]
        step = format_count(last[own[0]]["step"]) if own else ""
        label = label_arm(varied, values) or tables.format_trials(len(members))
        n += tables.count_failures(results, members)
        arms.append(Arm(label, values, members, own, n, step, cells))
    directions = {results.best.partition("/")[2]: best_mode}
    arms = mark_best(arms, [directions.get(name, "") for name in names])
    has_steps = len({arm.step for arm in arms} - {""}) > 1
    return Summary(tables.shorten_keys(varied), split, names, arms, has_steps)


def make_cell(
    name: str, trials: Sequence[str], last_rows: dict[str, dict], seeds: dict[str, Any]
) -> Cell:
    """Return the cell of a metric over some trials."""
    values = [last_rows[trial].get(name) for trial in trials]
    known = {
        seeds[trial]: float(value)
        for trial, value in zip(trials, values, strict=True)
        if value is not None
    }
    numbers = [value for value in values if value is not None]
    mean = float(np.mean(numbers)) if numbers else None
    return Cell(tables.format_mean_and_error(values), mean, known)


def label_arm(varied_keys: Sequence[str], values: Sequence[Any]) -> str:  # "beta = 1, lr = 0.1"
    """Return the name of an arm, as in the legend of figure.png."""
    pairs = zip(tables.shorten_keys(varied_keys), map(tables.format_cell, values), strict=True)
    return ", ".join(f"{key} = {value}" for key, value in pairs)


def mark_best(arms: list[Arm], directions: Sequence[str]) -> list[Arm]:
    """Return the arms with the best mean of each metric marked.

    Args:
      arms: the arms.
      directions: of each metric, "min", "max", or "" where none is better.
    """
    best: list[float | None] = []
    for i, direction in enumerate(directions):
        means = [mean for arm in arms if (mean := arm.cells[i].mean) is not None]
        best.append({"min": min, "max": max}[direction](means) if direction and means else None)
    if len(arms) < 2:
        return arms
    return [
        arm._replace(
            cells=[
                cell._replace(is_best=cell.mean is not None and cell.mean == value)
                for cell, value in zip(arm.cells, best, strict=True)
            ]
        )
        for arm in arms
    ]


def paired_difference(values: dict[Any, float], baseline: dict[Any, float]) -> Difference | None:
    """Return the mean of value - baseline over common seeds d_1 .. d_n, with Student's
    interval mean ± t(n - 1) sd / sqrt(n) of CONFIDENCE; None without a common seed.

    Examples:
      >>> paired_difference({0: 3.0, 1: 5.0, 2: 9.0}, {0: 1.0, 1: 3.0})
      Difference(mean=2.0, low=2.0, high=2.0, n=2)
    """
    common = [seed for seed in values if seed in baseline]
    if not common:
        return None
    differences = np.array([values[seed] - baseline[seed] for seed in common], np.float64)
    mean, n = float(differences.mean()), len(common)
    if n == 1:
        return Difference(mean, None, None, 1)
    half = student_quantile(n - 1) * float(differences.std(ddof=1)) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half, n)


def student_quantile(degrees: int) -> float:  # 12.7 of one degree, 1.96 of many
    """Return the two-sided quantile of Student's t distribution at CONFIDENCE."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def compare_to_baseline(
    summary: Summary, baseline: int
) -> list[list[Difference | None]]:  # [arms][metrics]
    """Return the differences of each arm to arm `baseline`, for each metric."""
    base = summary.arms[baseline].cells
    return [
        [paired_difference(c.values, b.values) for c, b in zip(arm.cells, base, strict=True)]
        for arm in summary.arms
    ]


def format_difference(difference: Difference | None, expected: int) -> str:
    """Return "-3.44 [-3.9, -2.9]"; ", n = 2" is appended unless n is `expected`."""
    if difference is None:
        return ""
    number = lambda x: f"{x:+.4g}".replace("-", "\u2212") if x else "0"
    text = number(difference.mean)
    if difference.low is not None and difference.high is not None:
        text += f" [{number(difference.low)}, {number(difference.high)}]"
    return text + f", n = {difference.n}" * (difference.n != expected)


def excludes_zero(difference: Difference | None) -> bool:
    """Return whether the interval of a difference does not contain 0."""
    if difference is None or difference.low is None or difference.high is None:
        return False
    return difference.low > 0 or difference.high < 0


def final_values(
    results: Results, summary: Summary
) -> dict[str, list[float | None]]:  # {metric: one value per trial}
    """Return {metric: value of each trial}: None of trials that no mean contains."""
    last = tables.last_rows(results.rows, summary.split)
    shown: Container[str] = {name for arm in summary.arms for name in arm.comparable}
    names = [trial["trial"] for trial in results.trials]
    return {
        metric: [last[name].get(metric) if name in shown else None for name in names]
        for metric in summary.names
    }

"""The numbers of a report's tables: those of table.md, and differences to each baseline
over common seeds.
"""

import math
from collections.abc import Collection as Container
from collections.abc import Sequence
from typing import Any, NamedTuple

from aigc_jax.sweeps import statistics, tables
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.presentation import name_arm, shorten_keys
from aigc_jax.sweeps.statistics import PairedDifference

LEVEL = 0.05  # of Holm's corrected p of an emphasized difference


class Cell(NamedTuple):
    """A metric of an arm: the statistic of its comparable trials."""

    text: str  # as in table.md
    centre: float | None
    values: dict[Any, float]  # {seed, or the trial without one: value}
    is_best: bool = False


class Arm(NamedTuple):
    """The trials with equal values of the varied keys."""

    label: str
    values: tuple
    members: list[str]
    comparable: list[str]  # the trials of the statistic
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
    notes: list[str]  # what the numbers are, and what is bold


def summarize_arms(results: Results) -> Summary:
    """Return the numbers of `tables.format_summary_table`."""
    lines, columns = tables.summarize_arms(results)
    seeds = {trial["trial"]: trial.get("seed", trial["trial"]) for trial in results.trials}
    cells = [make_cells(column, lines, seeds, results) for column in columns]
    arms = []
    for i, line in enumerate(lines):
        label = name_arm(line.arm, results.varied) or tables.format_trials(len(line.members))
        arms.append(Arm(label, *line, [column[i] for column in cells]))
    return Summary(
        shorten_keys(results.varied),
        tables.choose_table_split(results.rows, results.metric),
        [column.name for column in columns],
        arms,
        len({arm.step for arm in arms} - {""}) > 1,
        tables.describe_columns(columns, results),
    )


def make_cells(
    column: tables.Column, lines: list[tables.Line], seeds: dict[str, Any], results: Results
) -> list[Cell]:
    """Return the cells of a metric, one for each arm.

    Args:
      column: the metric and the values of the comparable trials of each line.
      lines: the arms.
      seeds: {trial: its seed, or its name if it has none}.
      results: the rows and all trials.
    """
    best = tables.find_best(column, results)
    out = []
    for i, (line, values) in enumerate(zip(lines, column.values, strict=True)):
        pairs = zip(line.comparable, values, strict=True)
        known = {seeds[trial]: float(value) for trial, value in pairs if value is not None}
        numbers = [value for value in values if value is not None]
        view = results.view
        centre = statistics.compute_statistic(numbers, view.statistic) if numbers else math.nan
        text = tables.format_centre_and_interval(values, view)
        out.append(Cell(text, float(centre) if numbers else None, known, i in best))
    return out


def compare_to_baselines(
    summary: Summary, baselines: Sequence[int]
) -> list[list[list[PairedDifference | None]]]:  # [baselines][arms][metrics]
    """Return the differences of each arm to each of these arms, for each metric, with
    Holm's correction over the arms (`statistics.paired_differences`); None of a
    baseline itself.
    """
    arms = [arm.values for arm in summary.arms]
    columns = []  # [metrics][baselines], {arm: difference}
    for k in range(len(summary.names)):
        values = {arm.values: arm.cells[k].values for arm in summary.arms}
        found = statistics.compare_to_baselines(values, [arms[i] for i in baselines])
        columns.append([{record.arm: record for record in records} for records in found])
    return [
        [[column[i].get(arm) for column in columns] for arm in arms] for i in range(len(baselines))
    ]


def format_difference(difference: PairedDifference | None, expected: int) -> str:
    """Return "-3.44 [-3.9, -2.9], p = 0.012"; ", n = 2" is appended unless n is
    `expected`.
    """
    if difference is None or difference.mean is None:
        return ""
    number = lambda x: f"{x:+.4g}".replace("-", "\u2212") if x else "0"
    text = number(difference.mean)
    if difference.low is not None and difference.high is not None:
        text += f" [{number(difference.low)}, {number(difference.high)}]"
    if difference.p_holm is not None:
        text += f", p = {difference.p_holm:.2g}"
    elif difference.is_without_variance:
        text += f", p {statistics.DASH}"
    return text + f", n = {difference.n}" * (difference.n != expected)


def describe_power(difference: PairedDifference | None) -> str:  # or ""
    """Return "n = 12 for 80 % power", of a difference of at least two seeds, or why it
    has no p.
    """
    if difference is None or difference.n < 2:
        return ""
    if difference.is_without_variance:
        return f"no p: {statistics.NO_VARIANCE}"
    needed = difference.n_for_power
    shown = f"{needed:,}" if needed else f"more than {statistics.MOST_SEEDS:,}"
    return f"n = {shown} for {statistics.POWER:.0%} power".replace("%", " %")


def is_significant(difference: PairedDifference | None) -> bool:
    """Return whether Holm's corrected p of a difference is below LEVEL."""
    return difference is not None and difference.p_holm is not None and difference.p_holm < LEVEL


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

"""Differences of the arms of a sweep to a baseline arm, paired by seed: a table and a
panel of the figure.
"""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from aigc_jax.sweeps.bare_rows import infer_trials
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.presentation import (
    escape_mathtext,
    find_arm,
    find_direction,
    format_cell,
    name_arm,
    shorten_keys,
    shorten_middle,
)
from aigc_jax.sweeps.statistics import (
    DASH,
    MOST_SEEDS,
    NO_VARIANCE,
    PairedDifference,
    final_values,
    paired_differences,
)
from aigc_jax.sweeps.tables import (
    choose_table_split,
    format_markdown_table,
    group_trials_by_values,
    last_rows,
    list_table_metrics,
    select_comparable_trials,
)
from aigc_jax.utils.errors import mark_argument, require
from aigc_jax.utils.quantities import format_count, format_number, label_metric

MOST_ARMS = 30  # in the panel of a figure
MOST_CHARACTERS = 40  # of the name of an arm beside the panel
TITLE_CHARACTERS = 48  # of a line of the panel's title


class Differences(NamedTuple):
    """The differences of all arms to the baseline.

    Attributes:
      metric: "split/name".
      baseline: values of the varied keys of the baseline.
      varied: the varied keys.
      direction: "min" if less of the metric is better, "max" if more, "" if unknown.
      records: one for each other arm.
    """

    metric: str
    baseline: tuple
    varied: list[str]
    direction: str
    records: list[PairedDifference]


def choose_difference_metric(results: Results) -> str:  # "split/name"
    """Return the metric of the differences: that of the results, else
    config.best_metric or the first of the table, in the table's split.
    """
    if results.metric:
        return results.metric
    names = list_table_metrics(results)
    best = results.best.partition("/")[2]
    require(names, f"{mark_argument('baseline')} needs a metric, and no row has a finite number")
    split = choose_table_split(results.rows, "")
    return f"{split}/{best if best in names else names[0]}"


def compute_differences(results: Results, part_column: str = "") -> Differences:
    """Return the differences to the baseline of the results' view, of the trials that
    are in the means of the table.

    Args:
      results: the results; trials that they lack are inferred from the rows.
      part_column: as in `infer_trials`.
    """
    columns = list(results.rows[0]) if results.rows else []
    require(
        results.trials or {"seed", "step", "split"} <= set(columns),
        f"{mark_argument('baseline')} needs rows with the columns seed, step and split, and these "
        f"have {', '.join(columns) or 'none'}",
    )
    results = infer_trials(results, part_column)
    metric, varied = choose_difference_metric(results), results.varied
    split, _, name = metric.partition("/")
    arms = group_trials_by_values(results.trials, varied)
    require(varied, f"{mark_argument('baseline')} needs a sweep of several arms")
    baseline = find_arm(results.view.baseline, arms, varied)
    last = last_rows(results.rows, split)
    shown = {
        trial
        for members in arms.values()
        for trial in select_comparable_trials(results, last, members)
    }
    rows = [row for row in results.rows if row["trial"] in shown]
    require(
        final_values(rows, metric, varied).get(baseline),
        f"{mark_argument('baseline')}={results.view.baseline} has no value of {metric}",
    )
    records = {r.arm: r for r in paired_differences(rows, metric, baseline, varied)}
    absent = lambda arm: PairedDifference(arm, None, None, None, 0, None, None, None)
    others = [records.get(arm, absent(arm)) for arm in arms if arm != baseline]
    direction = find_direction(name, results.best, results.mode)
    return Differences(metric, baseline, varied, direction, others)


def format_differences(found: Differences) -> str:  # Markdown
    """Return a table of the differences to the baseline, with a note below."""
    header = [
        *shorten_keys(found.varied),
        f"difference of {found.metric.replace('/', ' ')}",
        "95 % interval",
        "n",
        "p",
        "p (Holm)",
        "n for 80 % power",
    ]
    table = format_markdown_table(header, map(_format_record, found.records))
    better = dict(min=" (below 0 is better)", max=" (above 0 is better)").get(found.direction, "")
    tested = sum(record.p is not None for record in found.records)
    constant = any(record.is_without_variance for record in found.records)
    note = (
        f"Difference of each arm to {name_arm(found.baseline, found.varied)}{better}: mean over "
        "the n seeds that both have, paired; interval and two-sided p by Student's t of n - 1 "
        f"degrees of freedom; p (Holm) is corrected for {format_count(tested, 'comparison')}. n "
        "for 80 % power: seeds with which this difference would have p < 0.05 with a probability "
        "of 80 %, if it and its standard deviation were the true ones."
    ) + f" {DASH}: {NO_VARIANCE}." * constant
    return f"\n{table}\n{note}\n"


def _format_record(record: PairedDifference) -> list[str]:
    """Return the cells of a difference."""
    absent = DASH if record.is_without_variance else ""
    number = lambda value: absent if value is None else f"{value:.2g}"
    interval = absent
    if record.low is not None and record.high is not None:
        interval = f"[{format_number(record.low)}, {format_number(record.high)}]"
    power = absent if record.p is None else f"over {MOST_SEEDS:,}"
    return [
        *map(format_cell, record.arm),
        "" if record.mean is None else format_number(record.mean),
        interval,
        str(record.n),
        number(record.p),
        number(record.p_holm),
        power if record.n_for_power is None else f"{record.n_for_power:,}",
    ]


def draw_differences(found: Differences, axes: Any) -> None:
    """Plot the differences to the baseline with their 95 % intervals, one arm a line,
    each with n and the p value of Holm's correction.
    """
    shown = found.records[:MOST_ARMS]
    axes.axvline(0, color="black", linewidth=0.8)
    for place, record in enumerate(shown):
        if record.mean is None:
            continue
        ends = None
        if record.low is not None and record.high is not None:
            ends = [[record.mean - record.low], [record.high - record.mean]]
        axes.errorbar(record.mean, place, xerr=ends, fmt="o", markersize=4, capsize=2, color="0.2")
    axes.set_yticks(range(len(shown)), [_label(r, found.varied) for r in shown], fontsize=7)
    label = escape_mathtext(label_metric(found.metric.replace("/", " ")))
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=f"difference of {label}")
    name = shorten_middle(name_arm(found.baseline, found.varied), MOST_CHARACTERS)
    title = f"difference to the baseline {escape_mathtext(name)}"
    axes.set_title("\n".join(textwrap.wrap(title, TITLE_CHARACTERS)), fontsize=8)
    axes.grid(alpha=0.3, axis="x")


def _label(record: PairedDifference, varied: Sequence[str]) -> str:
    """Return the name of an arm with n and p."""
    p = "" if record.p_holm is None else f", p = {record.p_holm:.2g}"
    if record.is_without_variance:
        p = ", no variance"
    name = shorten_middle(name_arm(record.arm, varied), MOST_CHARACTERS)
    return f"{escape_mathtext(name)}\nn = {record.n}{p}"


def describe_differences(found: Differences) -> list[str]:  # notes
    """Return notes on the panel of differences."""
    out = ["Differences: paired by seed, 95 % intervals by Student's t, p with Holm's correction."]
    if any(record.is_without_variance for record in found.records):
        out.append(f"No variance: {NO_VARIANCE}.")
    if len(found.records) > MOST_ARMS:
        shown = f"The first {MOST_ARMS} of {len(found.records)} differences"
        out.append(f"{shown}; all are in the table.")
    return out


def tabulate_differences(found: Differences) -> list[dict]:
    """Return the rows behind the panel of differences."""
    return [
        dict(panel="differences", **dict(zip(found.varied, record.arm, strict=True)))
        | dict(metric=found.metric, statistic="paired difference", value=record.mean)
        | dict(low=record.low, high=record.high, n=record.n, interval="student")
        | dict(p=record.p, p_holm=record.p_holm, n_for_power=record.n_for_power)
        for record in found.records
    ]

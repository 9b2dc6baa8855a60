"""The table of differences of a report, to each arm as the baseline."""

from typing import Any

from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.pages import summary
from aigc_jax.sweeps.presentation import find_arm
from aigc_jax.sweeps.statistics import DASH, NO_VARIANCE, PairedDifference

MOST_LINES = 1000
MOST_BASELINES = 12  # of the arms, which the reader chooses from


def list_difference_variables(table: summary.Summary | None, results: Results) -> dict[str, Any]:
    """Return the variables of page.html about differences to a baseline."""
    found = list_differences(table, results)
    return dict(
        differences=found,
        has_constant=any(line["is_constant"] for each in found for line in each["lines"]),
        no_variance=f"p {DASH}: {NO_VARIANCE}",
    )


def list_differences(table: summary.Summary | None, results: Results) -> list[dict[str, Any]]:
    """Return {"baseline": its index, "is_first": whether it is shown first, "lines": of
    the table} for each arm, of many arms for the chosen one or the first alone; []
    without a second arm. Raise a UserError for a baseline that is no arm.
    """
    first = 0
    if table is not None and results.view.baseline:
        arms = [arm.values for arm in table.arms]
        first = arms.index(find_arm(results.view.baseline, arms, results.varied))
    if table is None or len(table.arms) < 2:
        return []
    is_many = len(table.arms) > MOST_BASELINES
    if is_many and not results.view.baseline and all(len(arm.comparable) < 2 for arm in table.arms):
        return []  # of a search: single trials beside an arbitrary one
    baselines = [first] if is_many else list(range(len(table.arms)))
    found = summary.compare_to_baselines(table, baselines)
    return [
        dict(baseline=b, is_first=b == first, lines=list_differences_to(table, b, records))
        for b, records in zip(baselines, found, strict=True)
    ]


def list_differences_to(
    table: summary.Summary, baseline: int, differences: list[list[PairedDifference | None]]
) -> list[dict[str, Any]]:
    """Return the lines of the table of differences [arms][metrics] to one arm."""
    lines = []
    for arm, found in zip(table.arms[:MOST_LINES], differences, strict=False):
        n = max((d.n for d in found if d), default=0)
        cells = [
            (summary.format_difference(d, n), summary.is_significant(d), summary.describe_power(d))
            for d in found
        ]
        is_constant = any(d.is_without_variance for d in found if d)
        lines.append(dict(label=arm.label, n=n, cells=cells, is_constant=is_constant))
    base = dict(n=len(table.arms[baseline].comparable), is_constant=False)
    lines[baseline] |= base | dict(cells=[("baseline", False, "")] * len(table.names))
    return lines

"""Tables of the rows of a sweep or of other runs, and the statistics of their figures.
The functions depend on rows alone.

Means are over trials that ended at the same step. All trials of the sweep are known, so
that a note below the table and the figure counts the missing, failed and unfinished
trials.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from aigc_jax.sweeps.evidence import Results
from aigc_jax.utils.errors import argument, nearest, require

NOT_METRICS = ("trial", "step", "split", "seed")
MOST = 8  # most metrics of a table


def last_rows(rows: list[dict], split: str) -> dict[str, dict]:
    """Return {trial: last row of a split}."""
    return {row["trial"]: row for row in rows if row["split"] == split}


def metrics_in(rows: Iterable[dict], split: str, varied: Collection[str]) -> list[str]:
    """Return the names of the metrics (numbers) in the rows of a split."""
    names = dict.fromkeys(
        k
        for row in rows
        if row["split"] == split
        for k, v in row.items()
        if isinstance(v, (int, float))
    )
    return [name for name in names if name not in NOT_METRICS and name not in varied]


def known_metrics(rows: Sequence[dict], varied: Collection[str]) -> list[str]:
    """Return 'split/name' of every metric in the rows."""
    splits = dict.fromkeys(row["split"] for row in rows)
    return [f"{split}/{name}" for split in splits for name in metrics_in(rows, split, varied)]


def has_metric(metric: str, rows: Sequence[dict], varied: Collection[str]) -> bool:
    """Return whether any row has the metric 'split/name'."""
    return metric in known_metrics(rows, varied)


def parts_of(metric: str, rows: Sequence[dict], varied: Collection[str]) -> tuple[str, str]:
    """Return ('test', 'loss') of 'test/loss'. Raise a UserError if no row has the
    metric.
    """
    known = known_metrics(rows, varied)
    require(
        metric in known,
        f"{argument('metric')}={metric} is not in any row; available: "
        f"{', '.join(known) or 'none'}{nearest(metric, known)}",
    )
    split, _, name = metric.partition("/")
    return split, name


def default_metric(rows: Sequence[dict], best: str, varied: Collection[str]) -> str:
    """Return config.best_metric if the valid rows have it, else the first metric of the
    valid, train or test rows, in this order.
    """
    for split in ("valid", "train", "test"):
        names = metrics_in(rows, split, varied)
        if names:
            wanted = best.removeprefix("valid/")
            return f"{split}/{wanted if split == 'valid' and wanted in names else names[0]}"
    return best


def split_of(rows: Iterable[dict], metric: str) -> str:
    """Return the split of a table: that of the metric, else test, else valid."""
    return metric.partition("/")[0] or (
        "test" if any(row["split"] == "test" for row in rows) else "valid"
    )


def group_by_values(trials: Iterable[dict], varied: Collection[str]) -> dict[tuple, list[str]]:
    """Return {values of the varied keys: trials}, in the order of the trials."""
    out: dict[tuple, list[str]] = {}
    for trial in trials:
        out.setdefault(tuple(trial.get(key) for key in varied), []).append(trial["trial"])
    return out


def comparable_trials(results: Results, last: dict[str, dict], names: Iterable[str]) -> list[str]:
    """Return the trials of a mean: those whose last row is at the largest step, because
    only runs of equal length are comparable, and that did not fail, because the last
    row of a failed trial is from before the failure.
    """
    failed = {t["trial"] for t in results.trials if t["status"].startswith("failed")}
    steps = {name: last[name]["step"] for name in names if name in last and name not in failed}
    return [name for name, step in steps.items() if step == max(steps.values())]


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the last part of each config key, or the full key if the part is not
    unique.
    """
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def summary_table(results: Results) -> str:
    """Return a Markdown table with one line per combination of varied values: the means
    of the last rows over its seeds, with the standard error in parentheses, and n, the
    number of trials in the mean ("n of m" if not all).

    The step of the last rows is a column if the steps differ.
    """
    rows, varied, metric = results.rows, results.varied, results.metric
    split = split_of(rows, metric)
    names = metrics_in(rows, split, varied)
    if metric and parts_of(metric, rows, varied)[1] in names:
        names = [metric.partition("/")[2], *(n for n in names if n != metric.partition("/")[2])]
    names, last = names[:MOST], last_rows(rows, split)
    lines: list[list[str]] = []
    for values, members in group_by_values(results.trials, varied).items():
        own = comparable_trials(results, last, members)
        n = f"{len(own)}" if len(own) == len(members) else f"{len(own)} of {len(members)}"
        cells = [mean_and_error([last[t].get(name) for t in own]) for name in names]
        lines.append(
            [*map(format_value, values), n, f"{last[own[0]]['step']}" if own else "", *cells]
        )
    header = [*short_keys(varied), "n", "step", *(f"{split} {name}" for name in names)]
    if len({line[len(varied) + 1] for line in lines} - {""}) < 2:
        header, *lines = (
            [*line[: len(varied) + 1], *line[len(varied) + 2 :]] for line in [header, *lines]
        )
    parts = ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]]
    parts[1] = parts[1].replace(" ", "")
    return "\n".join(parts) + "\n"


def missing_trials(results: Results, split: str, name: str = "") -> list[str]:
    """Return notes on the trials that a table of a split or a figure of a metric lacks,
    with the reasons.
    """
    trials = results.trials
    rows = [row for row in results.rows if not name or row.get(name) is not None]
    last, out = last_rows(rows, split), []
    statuses = Counter(trial["status"] for trial in trials)
    if set(statuses) - {"done"}:
        out.append(
            f"{with_plural(len(trials))}: "
            f"{', '.join(f'{n} {status}' for status, n in statuses.items())}."
        )
    groups = group_by_values(trials, results.varied).values()
    ended = [name for names in groups for name in comparable_trials(results, last, names)]
    failed = sum(trial["status"].startswith("failed") for trial in trials)
    absent = sum(t["trial"] not in last and not t["status"].startswith("failed") for t in trials)
    shorter = len(trials) - failed - absent - len(ended)
    lacking = f"a value of {split}/{name}" if name else f"a row of the {split} split"
    without = [f"{with_plural(failed)} that failed"] * bool(failed)
    without += [f"{with_plural(absent)} without {lacking}"] * bool(absent)
    without += [f"{with_plural(shorter)} that ended before the others of the line"] * bool(shorter)
    if without:
        out.append(
            f"Means are over {len(ended)} of {with_plural(len(trials))}, "
            f"leaving out {', '.join(without)}."
        )
    steps = Counter(last[name]["step"] for name in ended)
    if len(steps) > 1 and "steps" not in results.varied:
        out.append(
            "Last steps differ: "
            f"{', '.join(f'{step} ({with_plural(n)})' for step, n in sorted(steps.items()))}."
        )
    return out


def with_plural(n: int) -> str:
    """Return "1 trial", "2 trials", ..."""
    return f"{n} trial{'s' * (n != 1)}"


def format_value(value: object) -> str:
    """Format a value as a table cell: floats with 6 significant digits, None as ''."""
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def mean_and_error(values: Sequence[float | None]) -> str:
    """Format values as '103.4 (0.04)': the mean, and its standard error for at least
    two values; ', n = 2' is appended if values are missing or not finite (None).
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    error = f" ({np.std(known, ddof=1) / math.sqrt(len(known)):.2g})" if len(known) > 1 else ""
    return f"{np.mean(known):.4g}{error}" + f", n = {len(known)}" * (len(known) < len(values))

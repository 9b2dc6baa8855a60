"""Rows of a sweep, or of any runs, as a table and as a figure. What is drawn here knows
rows alone.

A mean is over trials that ended at the same step. Every trial that should be there is
known, so that what is missing, failed or unfinished is counted in a line below the
table and below the figure.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from aigc_jax.sweeps.evidence import Results
from aigc_jax.utils.errors import argument, nearest, require

NOT_METRICS = ("trial", "step", "split", "seed")
MOST = 8  # metrics in a table


def last_rows(rows: list[dict], split: str) -> dict[str, dict]:
    """{trial: its last row of a split}."""
    return {row["trial"]: row for row in rows if row["split"] == split}


def metrics_in(rows: Iterable[dict], split: str, varied: Collection[str]) -> list[str]:
    """Names of the numbers in the rows of a split."""
    names = dict.fromkeys(
        k
        for row in rows
        if row["split"] == split
        for k, v in row.items()
        if isinstance(v, (int, float))
    )
    return [name for name in names if name not in NOT_METRICS and name not in varied]


def known_metrics(rows: Sequence[dict], varied: Collection[str]) -> list[str]:
    """'split/name' of every number in the rows."""
    splits = dict.fromkeys(row["split"] for row in rows)
    return [f"{split}/{name}" for split in splits for name in metrics_in(rows, split, varied)]


def has_metric(metric: str, rows: Sequence[dict], varied: Collection[str]) -> bool:
    """Return whether 'split/name' is a number of some row."""
    return metric in known_metrics(rows, varied)


def parts_of(metric: str, rows: Sequence[dict], varied: Collection[str]) -> tuple[str, str]:
    """('test', 'loss') of 'test/loss'; a UserError where no row has it."""
    known = known_metrics(rows, varied)
    require(
        metric in known,
        f"{argument('metric')}={metric} is in no row; there are "
        f"{', '.join(known) or 'none'}{nearest(metric, known)}",
    )
    split, _, name = metric.partition("/")
    return split, name


def default_metric(rows: Sequence[dict], best: str, varied: Collection[str]) -> str:
    """config.best, else the first number of the valid, the train or the test rows."""
    for split in ("valid", "train", "test"):
        names = metrics_in(rows, split, varied)
        if names:
            wanted = best.removeprefix("valid/")
            return f"{split}/{wanted if split == 'valid' and wanted in names else names[0]}"
    return best


def split_of(rows: Iterable[dict], metric: str) -> str:
    """The split that a table shows: the metric's, else test, else valid."""
    return metric.partition("/")[0] or (
        "test" if any(row["split"] == "test" for row in rows) else "valid"
    )


def combinations(trials: Iterable[dict], varied: Collection[str]) -> dict[tuple, list[str]]:
    """{values of the varied keys: trials}, in the order of the trials."""
    out: dict[tuple, list[str]] = {}
    for trial in trials:
        out.setdefault(tuple(trial.get(key) for key in varied), []).append(trial["trial"])
    return out


def counted(found: Results, last: dict[str, dict], names: Iterable[str]) -> list[str]:
    """The trials that a mean is over: those whose last row is at the largest step of
    all, for only their values are of one length, without those that failed, whose last
    row is of before that.
    """
    failed = {t["trial"] for t in found.trials if t["status"].startswith("failed")}
    steps = {name: last[name]["step"] for name in names if name in last and name not in failed}
    return [name for name, step in steps.items() if step == max(steps.values())]


def short(keys: Sequence[str]) -> list[str]:
    """The last parts of config keys; the keys themselves where two would be alike."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def summary(found: Results) -> str:
    """A Markdown table: each combination of varied values with the mean over its seeds
    of what the last rows hold, the standard error in parentheses, and n: of how many
    trials, where not of all.

    The step of those rows is a column where it is not the same everywhere.
    """
    rows, varied, metric = found.rows, found.varied, found.metric
    split = split_of(rows, metric)
    names = metrics_in(rows, split, varied)
    if metric and parts_of(metric, rows, varied)[1] in names:
        names = [metric.partition("/")[2], *(n for n in names if n != metric.partition("/")[2])]
    names, last = names[:MOST], last_rows(rows, split)
    lines: list[list[str]] = []
    for values, members in combinations(found.trials, varied).items():
        own = counted(found, last, members)
        n = f"{len(own)}" if len(own) == len(members) else f"{len(own)} of {len(members)}"
        cells = [mean_and_error([last[t].get(name) for t in own]) for name in names]
        lines.append([*map(shown, values), n, f"{last[own[0]]['step']}" if own else "", *cells])
    header = [*short(varied), "n", "step", *(f"{split} {name}" for name in names)]
    if len({line[len(varied) + 1] for line in lines} - {""}) < 2:
        header, *lines = (
            [*line[: len(varied) + 1], *line[len(varied) + 2 :]] for line in [header, *lines]
        )
    parts = ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]]
    parts[1] = parts[1].replace(" ", "")
    return "\n".join(parts) + "\n"


def notes(found: Results, split: str, name: str = "") -> list[str]:
    """Which trials a table of a split, or a figure of a metric, lacks, and why."""
    trials = found.trials
    rows = [row for row in found.rows if not name or row.get(name) is not None]
    last, out = last_rows(rows, split), []
    statuses = Counter(trial["status"] for trial in trials)
    if set(statuses) - {"done"}:
        out.append(
            f"{plural(len(trials))}: "
            f"{', '.join(f'{n} {status}' for status, n in statuses.items())}."
        )
    groups = combinations(trials, found.varied).values()
    ended = [name for names in groups for name in counted(found, last, names)]
    failed = sum(trial["status"].startswith("failed") for trial in trials)
    absent = sum(t["trial"] not in last and not t["status"].startswith("failed") for t in trials)
    shorter = len(trials) - failed - absent - len(ended)
    lacking = f"a value of {split}/{name}" if name else f"a row of the {split} split"
    without = [f"{plural(failed)} that failed"] * bool(failed)
    without += [f"{plural(absent)} without {lacking}"] * bool(absent)
    without += [f"{plural(shorter)} that ended before the others of the line"] * bool(shorter)
    if without:
        out.append(
            f"Means are over {len(ended)} of {plural(len(trials))}, "
            f"leaving out {', '.join(without)}."
        )
    steps = Counter(last[name]["step"] for name in ended)
    if len(steps) > 1 and "steps" not in found.varied:
        out.append(
            "Last steps differ: "
            f"{', '.join(f'{step} ({plural(n)})' for step, n in sorted(steps.items()))}."
        )
    return out


def plural(n: int) -> str:
    """Return "1 trial", "2 trials" and so on."""
    return f"{n} trial{'s' * (n != 1)}"


def shown(value: object) -> str:
    """Return a value as a cell of a table: numbers of 6 digits, '' for None."""
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def mean_and_error(values: Sequence[float | None]) -> str:
    """'103.4 (0.04)': the mean, and its standard error where there are two values or
    more; ', n = 2' where some are not there or not finite.
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    error = f" ({np.std(known, ddof=1) / math.sqrt(len(known)):.2g})" if len(known) > 1 else ""
    return f"{np.mean(known):.4g}{error}" + f", n = {len(known)}" * (len(known) < len(values))

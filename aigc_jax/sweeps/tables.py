"""Tables of the rows of a sweep or of other runs, and the statistics of their figures.
The functions depend on rows alone.

Means are over trials that ended at the same step. All trials of the sweep are known, so
that a note below the table and the figure counts the missing, failed and unfinished
trials.

A row is {trial, varied keys, seed, step, split, values}. The functions share their
arguments: `split` is the name of a split, `varied_keys` the varied keys, which are not
metrics although they may be numbers, and `metric` is "split/name".
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.presentation import (
    Presentation,
    escape_markdown,
    find_direction,
    format_cell,
    shorten_keys,
)
from aigc_jax.sweeps.statistics import compute_interval, compute_statistic
from aigc_jax.training.run_dir import DAMAGED, RESUMABLE
from aigc_jax.utils.errors import format_suggestion, join_names, mark_argument, require
from aigc_jax.utils.quantities import format_count, format_number

NOT_METRICS = ("trial", "step", "split", "seed")
MOST = 8  # most metrics of a table


def last_rows(rows: list[dict], split: str) -> dict[str, dict]:  # {trial: row}
    """Return {trial: last row of a split}."""
    return {row["trial"]: row for row in rows if row["split"] == split}


def list_metric_names(
    rows: Iterable[dict], split: str, varied_keys: Collection[str]
) -> list[str]:  # of number values
    """Return the names of the metrics (numbers) in the rows of a split."""
    names = dict.fromkeys(
        k
        for row in rows
        if row["split"] == split
        for k, v in row.items()
        if isinstance(v, (int, float))
    )
    return [name for name in names if name not in NOT_METRICS and name not in varied_keys]


def list_metrics(rows: Sequence[dict], varied_keys: Collection[str]) -> list[str]:  # "split/name"
    """Return 'split/name' of every metric in the rows."""
    splits = dict.fromkeys(row["split"] for row in rows)
    return [
        f"{split}/{name}"
        for split in splits
        for name in list_metric_names(rows, split, varied_keys)
    ]


def has_metric(
    metric: str, rows: Sequence[dict], varied_keys: Collection[str]
) -> bool:  # "split/name"
    """Return whether any row has the metric 'split/name'."""
    return metric in list_metrics(rows, varied_keys)


def parse_metric(
    metric: str, rows: Sequence[dict], varied_keys: Collection[str]
) -> tuple[str, str]:  # "split/name" -> (split, name)
    """Return ("test", "loss") of "test/loss". Raise a UserError if no row has the
    metric.
    """
    known = list_metrics(rows, varied_keys)
    require(
        metric in known,
        f"{mark_argument('metric')}={metric} is not in any row; available: "
        f"{', '.join(known) or 'none'}{format_suggestion(metric, known)}",
    )
    split, _, name = metric.partition("/")
    return split, name


def choose_default_metric(
    rows: Sequence[dict], best_metric: str, varied_keys: Collection[str]
) -> str:  # "split/name"
    """Return `best_metric`, which is config.best_metric, if the valid rows have it,
    else the first metric of the valid, train or test rows, in this order; `best_metric`
    if no row has any.
    """
    for split in ("valid", "train", "test"):
        names = list_metric_names(rows, split, varied_keys)
        if names:
            wanted = best_metric.removeprefix("valid/")
            return f"{split}/{wanted if split == 'valid' and wanted in names else names[0]}"
    return best_metric


def choose_table_split(
    rows: Iterable[dict], metric: str
) -> str:  # the metric's, else test, else valid
    """Return the split of a table: that of the metric, else test, else valid."""
    return metric.partition("/")[0] or (
        "test" if any(row["split"] == "test" for row in rows) else "valid"
    )


def group_trials_by_values(
    trials: Iterable[dict], varied_keys: Collection[str]
) -> dict[tuple, list[str]]:  # {values of the varied keys: trials}
    """Return {values of the varied keys: trials}, in the order of the trials."""
    out: dict[tuple, list[str]] = {}
    for trial in trials:
        out.setdefault(tuple(trial.get(key) for key in varied_keys), []).append(trial["trial"])
    return out


def select_comparable_trials(
    results: Results, last_row_by_trial: dict[str, dict], trial_names: Iterable[str]
) -> list[str]:  # that ended last, and did not fail
    """Return the trials of a mean: those whose last row is at the largest step, because
    only runs of equal length are comparable, and that did not fail, because the last
    row of a failed trial is from before the failure.

    Args:
      results: the results, whose trials have the statuses.
      last_row_by_trial: {trial: its last row}; trials without one are left out.
      trial_names: the trials of the mean, such as those that differ only in the seed.
    """
    failed = {t["trial"] for t in results.trials if t["status"].startswith("failed")}
    steps = {
        name: last_row_by_trial[name]["step"]
        for name in trial_names
        if name in last_row_by_trial and name not in failed
    }
    return [name for name, step in steps.items() if step == max(steps.values())]


class Line(NamedTuple):
    """The trials of an arm: those with equal values of the varied keys."""

    arm: tuple  # the values
    members: list[str]
    comparable: list[str]  # the trials of the statistic
    num_trials: str  # "5", or "2 of 3, 1 diverged"
    step: str  # of the last rows; "" without one


class Column(NamedTuple):
    """A metric of the table: the values of the trials of each line."""

    split: str
    name: str
    values: list[list[float | None]]  # None: missing or not finite

    @property
    def title(self) -> str:
        """The head of the column."""
        return f"{self.split} {self.name}"


def format_summary_table(results: Results) -> str:  # Markdown
    """Return a Markdown table with one line per combination of varied values: the
    statistic of the last rows over its seeds, with the error bar, and n, the number of
    trials in it ("2 of 3, 1 diverged" if not all). The best of a column is bold.

    The step of the last rows is a column if the steps differ. A line below names the
    statistic, the error bar and what is bold, and another the metrics without a column.
    """
    arms, columns = summarize_arms(results)
    names = list_table_metrics(results)
    texts = [_format_column(column, results) for column in columns]
    lines = [
        [*map(format_cell, line.arm), line.num_trials, line.step, *(cells[i] for cells in texts)]
        for i, line in enumerate(arms)
    ]
    header = [*shorten_keys(results.varied), "n", "step", *(column.title for column in columns)]
    place = len(results.varied) + 1
    if len({line[place] for line in lines} - {""}) < 2:
        header, *lines = ([*line[:place], *line[place + 1 :]] for line in [header, *lines])
    table = format_markdown_table(header, lines)
    notes = describe_columns(columns, results)
    if len(names) > MOST:
        notes.append(f"Not in the table: {join_names(names[MOST:])}.")
    return table + "".join(f"\n{escape_markdown(note)}\n" for note in notes)


def list_table_metrics(results: Results) -> list[str]:  # the metric first
    """Return the names of the metrics of the table's split, those of `MOST` in the
    table first.
    """
    rows, varied, metric = results.rows, results.varied, results.metric
    names = list_metric_names(rows, choose_table_split(rows, metric), varied)
    if metric and parse_metric(metric, rows, varied)[1] in names:
        first = metric.partition("/")[2]
        names = [first, *(name for name in names if name != first)]
    return names


def summarize_arms(results: Results) -> tuple[list[Line], list[Column]]:
    """Return the lines of the summary table, and its first `MOST` metrics with the
    values of the comparable trials of each line.
    """
    split = choose_table_split(results.rows, results.metric)
    last, lines = last_rows(results.rows, split), []
    columns = [Column(split, name, []) for name in list_table_metrics(results)[:MOST]]
    for values, members in group_trials_by_values(results.trials, results.varied).items():
        own = select_comparable_trials(results, last, members)
        n = f"{len(own)}" if len(own) == len(members) else f"{len(own)} of {len(members)}"
        n += count_failures(results, members)
        step = format_count(last[own[0]]["step"]) if own else ""
        lines.append(Line(values, members, own, n, step))
        for column in columns:
            column.values.append([last[trial].get(column.name) for trial in own])
    return lines, columns


def _format_column(column: Column, results: Results) -> list[str]:
    """Return the cells of a metric, the best of them bold."""
    best = find_best(column, results)
    cells = [format_centre_and_interval(values, results.view) for values in column.values]
    return [f"**{cell}**" if i in best else cell for i, cell in enumerate(cells)]


def find_best(column: Column, results: Results) -> list[int]:  # several: equal ones
    """Return the lines with the best value of a metric; [] if its direction is unknown
    or fewer than two lines have a value.
    """
    direction = find_direction(column.name, results.best, results.mode)
    known = {
        i: float(compute_statistic(numbers, results.view.statistic))
        for i, values in enumerate(column.values)
        if (numbers := [value for value in values if value is not None])
    }
    if not direction or len(known) < 2:
        return []
    best = dict(min=min, max=max)[direction](known.values())
    return [i for i, value in known.items() if value == best]


def describe_columns(columns: Sequence[Column], results: Results) -> list[str]:  # notes
    """Return a note that names the statistic, the error bar and what is bold, as far as
    they are in the table.
    """
    statistic, error_bar = results.view.describe()
    several = any(
        sum(value is not None for value in values) > 1
        for column in columns
        for values in column.values
    )
    parts = []
    if several:
        where = "parentheses" if results.view.error_bar in ("se", "sd") else "brackets"
        parts.append(f"{statistic} over n trials that differ in the seed; {error_bar} in {where}")
    if any(find_best(column, results) for column in columns):
        parts.append("bold: the best of a column")
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def format_markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, whose cells are escaped."""
    escape = lambda line: "| " + " | ".join(map(escape_markdown, line)) + " |"
    return "\n".join([escape(header), "|---" * len(header) + "|", *map(escape, lines)]) + "\n"


def count_failures(results: Results, trial_names: Collection[str]) -> str:  # ", 1 diverged"
    """Return the numbers of failed trials by kind, as in ", 1 diverged", or ""."""
    statuses = [t["status"] for t in results.trials if t["trial"] in trial_names]
    kinds = Counter(s.removeprefix("failed: ") for s in statuses if s.startswith("failed"))
    return "".join(f", {count} {kind}" for kind, count in kinds.items())


def describe_failed_trials(results: Results) -> list[str]:  # notes
    """Return a note that names the diverged trials, with the values that were not
    finite and their steps, and a note on each damaged trial.
    """
    diverged = [t for t in results.trials if t["status"] == "failed: diverged"]
    named = [t["trial"] + (f" ({t['failure']})" if t.get("failure") else "") for t in diverged]
    damaged = [t for t in results.trials if t["status"] == DAMAGED]
    notes = [f"{t['trial']} is left out: {t['failure']}." for t in damaged[:MOST]]
    if len(damaged) > MOST:
        notes.append(f"{format_trials(len(damaged) - MOST)} more are damaged.")
    return [f"Diverged: {join_names(named, MOST)}."] * bool(named) + notes


def describe_missing_trials(
    results: Results, split: str, metric_name: str = "", shown: Collection[str] | None = None
) -> list[str]:  # notes
    """Return notes on the trials that a table of a split or a figure of a metric lacks,
    with the reasons.

    Args:
      results: the rows and all trials.
      split: name of the split.
      metric_name: name of the metric of a figure; "": any row of the split suffices.
      shown: the trials in the means; None: those of `select_comparable_trials`.
    """
    trials = results.trials
    rows = [row for row in results.rows if not metric_name or row.get(metric_name) is not None]
    last, out = last_rows(rows, split), []
    statuses = Counter(trial["status"] for trial in trials)
    if set(statuses) - {"done"} and not (len(statuses) == 1 and set(statuses) <= {*RESUMABLE}):
        out.append(
            f"{format_trials(len(trials))}: "
            f"{', '.join(f'{n:,} {status}' for status, n in statuses.items())}."
        )
    out += describe_resumable_trials(results)
    groups = group_trials_by_values(trials, results.varied).values()
    ended = [name for names in groups for name in select_comparable_trials(results, last, names)]
    ended = ended if shown is None else list(shown)
    failed = sum(trial["status"].startswith("failed") for trial in trials)
    absent = sum(t["trial"] not in last and not t["status"].startswith("failed") for t in trials)
    shorter = len(trials) - failed - absent - len(ended)
    lacking = f"a value of {split}/{metric_name}" if metric_name else f"a row of the {split} split"
    damaged = [trial for trial in trials if trial["status"] == DAMAGED]
    why = "failed" + f" or {'is' if failed == 1 else 'are'} damaged" * bool(damaged)
    without = [f"{format_trials(failed)} that {why}"] * bool(failed)
    without += [f"{format_trials(absent)} without {lacking}"] * bool(absent)
    without += [f"{format_trials(shorter)} that ended before the others of the line"] * bool(
        shorter
    )
    if without:
        out.append(
            f"Means are over {len(ended):,} of {format_trials(len(trials))}, "
            f"leaving out {', '.join(without)}."
        )
    steps = Counter(last[name]["step"] for name in ended)
    if len(steps) > 1 and "steps" not in results.varied:
        out.append(
            "Last steps differ: "
            f"{', '.join(f'{step:,} ({format_trials(n)})' for step, n in sorted(steps.items()))}."
        )
    return out


def describe_resumable_trials(results: Results) -> list[str]:  # notes
    """Return a note for each status of trials that the same command resumes, with the
    steps of their last rows.
    """
    out = []
    for status in RESUMABLE:
        found = [trial for trial in results.trials if trial["status"] == status]
        if found:
            count = f"{len(found):,} of {format_count(len(results.trials), results.noun)}"
            steps = join_names(dict.fromkeys(t["failure"] for t in found if "failure" in t), MOST)
            is_one = len(found) == 1
            out.append(
                f"{count} {'is' if is_one else 'are'} {status}{', ' * bool(steps)}{steps}; "
                f"{format_resumption(results, 'it' if is_one else 'them')}."
            )
    return out


def format_resumption(results: Results, what: str = "it") -> str:
    """Return how interrupted trials or runs are resumed."""
    verb = "train" if results.noun == "run" else "sweep"
    return f"the same {verb} command resumes {what}"


def format_trials(count: int) -> str:  # "2 trials"
    """Return "1 trial", "2 trials", ..."""
    return format_count(count, "trial")


def format_centre_and_interval(
    values: Sequence[float | None], view: Presentation
) -> str:  # "103.4 (0.04)", "103.4 [103.3, 103.5]"
    """Format values as '103.4 (0.04)': the statistic, and for at least two values the
    standard error or deviation, or '[103.3, 103.5]', the interval; ', n = 2' is
    appended if values are missing or not finite (None).
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    out = format_number(float(compute_statistic(known, view.statistic)))
    ends = compute_interval(known, view.statistic, view.error_bar)
    if ends is not None and view.error_bar in ("se", "sd"):
        out += f" ({(ends[1] - ends[0]) / 2:.2g})"
    elif ends is not None:
        out += f" [{format_number(float(ends[0]))}, {format_number(float(ends[1]))}]"
    return out + f", n = {len(known)}" * (len(known) < len(values))

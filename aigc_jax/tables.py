"""Rows of a sweep, or of any runs, as a table and as a figure. What is drawn here knows rows alone.

A mean is over trials that ended at the same step. Every trial that should be there is known, so
that what is missing, failed or unfinished is counted in a line below the table and below the figure.
"""

import io
import math
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np

from aigc_jax.errors import nearest, require
from aigc_jax.evidence import Results
from aigc_jax.stored import write_atomically

NOT_METRICS = ("trial", "step", "split", "seed")
MOST = 8  # metrics in a table
INSIDE = 16  # lines that a legend inside the axes names
NAMED = 60  # lines that a legend beside them names
CHARACTERS_PER_INCH = 18  # of the notes below a figure
LINE_STYLES = ("-", "--", "-.", ":")  # in turn, where colours alone are too near


def last_rows(rows: list[dict], split: str) -> dict[str, dict]:
    """{trial: its last row of a split}."""
    return {row["trial"]: row for row in rows if row["split"] == split}


def metrics_in(rows, split, varied) -> list[str]:
    """Names of the numbers in the rows of a split."""
    names = dict.fromkeys(
        k
        for row in rows
        if row["split"] == split
        for k, v in row.items()
        if isinstance(v, (int, float))
    )
    return [name for name in names if name not in NOT_METRICS and name not in varied]


def known_metrics(rows, varied) -> list[str]:
    """'split/name' of every number in the rows."""
    splits = dict.fromkeys(row["split"] for row in rows)
    return [f"{split}/{name}" for split in splits for name in metrics_in(rows, split, varied)]


def has_metric(metric: str, rows, varied) -> bool:
    return metric in known_metrics(rows, varied)


def parts_of(metric: str, rows, varied) -> tuple[str, str]:
    """('test', 'loss') of 'test/loss'; a UserError where no row has it."""
    known = known_metrics(rows, varied)
    require(
        metric in known,
        f"--metric={metric} is in no row; there are "
        f"{', '.join(known) or 'none'}{nearest(metric, known)}",
    )
    return tuple(metric.split("/", 1))


def default_metric(rows, best: str, varied) -> str:
    """config.best, else the first number of the valid rows, else of train rows, of test rows."""
    for split in ("valid", "train", "test"):
        names = metrics_in(rows, split, varied)
        if names:
            wanted = best.removeprefix("valid/")
            return f"{split}/{wanted if split == 'valid' and wanted in names else names[0]}"
    return best


def split_of(rows, metric: str) -> str:
    """The split that a table shows: the metric's, else test where there is one, else valid."""
    return metric.partition("/")[0] or (
        "test" if any(row["split"] == "test" for row in rows) else "valid"
    )


def combinations(trials, varied) -> dict[tuple, list[str]]:
    """{values of the varied keys: trials}, in the order of the trials."""
    out = {}
    for trial in trials:
        out.setdefault(tuple(trial.get(key) for key in varied), []).append(trial["trial"])
    return out


def counted(found: Results, last: dict[str, dict], names) -> list[str]:
    """The trials that a mean is over: those whose last row is at the largest step of all, for only
    their values are of one length, without those that failed, whose last row is of before that."""
    failed = {t["trial"] for t in found.trials if t["status"].startswith("failed")}
    steps = {name: last[name]["step"] for name in names if name in last and name not in failed}
    return [name for name, step in steps.items() if step == max(steps.values())]


def short(keys) -> list[str]:
    """The last parts of config keys; the keys themselves where two would be alike."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return [name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)]


def summary(found: Results) -> str:
    """A Markdown table: each combination of varied values with the mean over its seeds of what the
    last rows hold, the standard error in parentheses, and n: of how many trials, where not of all.

    The step of those rows is a column where it is not the same everywhere.
    """
    rows, varied, metric = found.rows, found.varied, found.metric
    split = split_of(rows, metric)
    names = metrics_in(rows, split, varied)
    if metric and parts_of(metric, rows, varied)[1] in names:
        names = [metric.partition("/")[2], *(n for n in names if n != metric.partition("/")[2])]
    names, last, lines = names[:MOST], last_rows(rows, split), []
    for values, members in combinations(found.trials, varied).items():
        own = counted(found, last, members)
        n = f"{len(own)}" if len(own) == len(members) else f"{len(own)} of {len(members)}"
        cells = [mean_and_error([last[t].get(name) for t in own]) for name in names]
        lines.append((*map(shown, values), n, f"{last[own[0]]['step']}" if own else "", *cells))
    header = [*short(varied), "n", "step", *(f"{split} {name}" for name in names)]
    if len({line[len(varied) + 1] for line in lines} - {""}) < 2:
        header, *lines = (
            [*line[: len(varied) + 1], *line[len(varied) + 2 :]] for line in [header, *lines]
        )
    parts = ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]]
    parts[1] = parts[1].replace(" ", "")
    return "\n".join(parts) + "\n"


def notes(found: Results, split: str, name="") -> list[str]:
    """Which trials a table of a split, or a figure of one metric, is without, and why."""
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
    return f"{n} trial{'s' * (n != 1)}"


def shown(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def mean_and_error(values) -> str:
    """'103.4 (0.04)': the mean, and its standard error where there are two values or more;
    ', n = 2' where some are not there or not finite."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    error = f" ({np.std(known, ddof=1) / math.sqrt(len(known)):.2g})" if len(known) > 1 else ""
    return f"{np.mean(known):.4g}{error}" + f", n = {len(known)}" * (len(known) < len(values))


def curves(rows, names, split, name) -> dict[str, dict]:
    """{trial: {step: value}} of the trials that have any value of a metric."""
    out = {}
    for row in rows:
        if row["trial"] in names and row["split"] == split and row.get(name) is not None:
            out.setdefault(row["trial"], {})[row["step"]] = row[name]
    return out


def mean_curve(curves: dict[str, dict], names):
    """Steps that all of some trials have, and the values [steps, trials] there."""
    steps = sorted(set.intersection(*(set(curves[name]) for name in names))) if names else []
    values = [[curves[name][step] for name in names] for step in steps]
    return np.array(steps), np.array(values).reshape(len(steps), len(names))


def draw(found: Results, metric: str, axes):
    """The metric over steps: a line per combination of varied values, the mean over its seeds, and
    a band of one standard error; a thin line for each trial that ended before the others."""
    split, name = parts_of(metric, found.rows, found.varied)
    lines = combinations(found.trials, found.varied)
    for number, (values, members) in enumerate(lines.items()):
        own = curves(found.rows, set(members), split, name)
        ends = {trial: dict(step=max(line)) for trial, line in own.items()}
        complete = counted(found, ends, members)
        steps, y = mean_curve(own, complete)
        style = line_style(number, len(lines))
        count = f"{len(complete)} of {plural(len(members))}" if len(complete) < len(members) else ""
        pairs = zip(short(found.varied), map(shown, values), strict=True)
        label = ", ".join(f"{key} = {value}" for key, value in pairs)
        label = f"{label} ({count})" if label and count else label or count or plural(len(members))
        if len(steps):
            draw_mean(steps, y, style | dict(label=label), axes)
        for shorter in (own[trial] for trial in own if trial not in complete):
            x, line = zip(*sorted(shorter.items()), strict=True)
            axes.plot(x, line, color=style["color"], linewidth=0.6, alpha=0.7, marker=marker_of(x))
    axes.set(xlabel="step", ylabel=f"{split} {name}")
    axes.grid(alpha=0.3)
    add_legend(axes)


def draw_mean(steps, y, style, axes):
    """The mean of y [steps, trials] and its band."""
    mean, count = y.mean(1), y.shape[1]
    axes.plot(steps, mean, linewidth=1.3, marker=marker_of(steps), **style)
    if count > 1:
        error = y.std(1, ddof=1) / math.sqrt(count)
        axes.fill_between(
            steps, mean - error, mean + error, color=style["color"], alpha=0.25, linewidth=0
        )


def marker_of(steps) -> str:
    """A line of one point is seen by its marker alone."""
    return "." if len(steps) == 1 else ""


def line_style(number: int, count: int) -> dict:
    """Colour and dashes of a line among others."""
    import matplotlib

    if count == 1:
        return dict(color="tab:blue")
    colour = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count)[number])
    return dict(
        color=colour, linestyle=LINE_STYLES[number % len(LINE_STYLES)] if count > INSIDE else "-"
    )


def size_for(lines: int) -> tuple[float, float]:
    """Inches of a figure with room for the legend of so many lines."""
    if lines <= INSIDE or lines > NAMED:
        return 6, 4
    return 7 + 2.5 * legend_columns(lines), 6


def legend_columns(lines: int) -> int:
    return -(-lines // 30)


def add_legend(axes):
    """Inside the axes, beside them where it is long; of too many lines their number alone."""
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


def prepare():
    """Import what `save_figure` needs, which takes half a second."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.figure  # noqa: F401


def draw_figure(figure, size=(6, 4), panels=(1, 1), notes=()):
    """A matplotlib Figure as `figure(axes)` draws it, above the notes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    drawing = Figure(figsize=size, layout="constrained", dpi=100)
    figure(drawing.subplots(*panels))
    if notes:
        text = "\n".join(textwrap.wrap(" ".join(notes), int(CHARACTERS_PER_INCH * size[0])))
        drawing.supxlabel(text, fontsize=7, x=0.01, ha="left")
    return drawing


def save_figure(path: Path, figure, **more):
    """A figure, .png or .pdf, by `draw_figure`; the same bytes of the same rows."""
    buffer, kind = io.BytesIO(), path.suffix[1:]
    metadata = dict(CreationDate=None) if kind == "pdf" else None
    draw_figure(figure, **more).savefig(buffer, format=kind, metadata=metadata)
    write_atomically(path, buffer.getvalue())


def save(folder: Path, table: str, figure, names=("figure.png", "figure.pdf"), **more):
    """table.md and the figure."""
    write_atomically(folder / "table.md", table)
    for name in names:
        save_figure(folder / name, figure, **more)

"""Rows of a sweep, or of any runs, as a table and as a figure. What is drawn here knows rows alone."""

import io
import math
from pathlib import Path

import numpy as np

from aigc_jax.errors import nearest, require
from aigc_jax.stored import write_atomically

NOT_METRICS = ("trial", "step", "split", "seed")
MOST = 8  # metrics in a table


def last_rows(rows: list[dict], split: str) -> dict[str, dict]:
    """{trial: its last row of a split}."""
    return {row["trial"]: row for row in rows if row["split"] == split}


def metrics_in(rows, split, varied) -> list[str]:
    """Names of the numbers in the rows of a split."""
    names = dict.fromkeys(k for row in rows if row["split"] == split for k, v in row.items() if isinstance(v, (int, float)))
    return [name for name in names if name not in NOT_METRICS and name not in varied]


def parts_of(metric: str, rows, varied) -> tuple[str, str]:
    """('test', 'loss') of 'test/loss'; a UserError where no row has it."""
    split, _, name = metric.partition("/")
    known = [f"{s}/{m}" for s in dict.fromkeys(row["split"] for row in rows) for m in metrics_in(rows, s, varied)]
    require(metric in known, f"--metric={metric} is in no row; there are {', '.join(known) or 'none'}{nearest(metric, known)}")
    return split, name


def default_metric(rows, best: str, varied) -> str:
    """config.best, else the first number of the valid rows, else of the train rows."""
    for split in ("valid", "train"):
        names = metrics_in(rows, split, varied)
        if names:
            wanted = best.removeprefix("valid/")
            return f"{split}/{wanted if split == 'valid' and wanted in names else names[0]}"
    return best


def combinations(rows, varied) -> dict[tuple, list[str]]:
    """{values of the varied keys: trials}, in the order of the rows."""
    out = {}
    for row in rows:
        trials = out.setdefault(tuple(row.get(key) for key in varied), [])
        if row["trial"] not in trials:
            trials.append(row["trial"])
    return out


def short(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def summary(rows: list[dict], varied: list[str], metric: str = "") -> str:
    """A Markdown table: each combination of varied values with the mean over its seeds of what the last rows hold, the standard error in
    parentheses, and n: of how many trials, where some have no such row."""
    split = metric.partition("/")[0] if metric else "test" if any(row["split"] == "test" for row in rows) else "valid"
    names = metrics_in(rows, split, varied)
    if metric and parts_of(metric, rows, varied)[1] in names:
        names = [metric.partition("/")[2], *(n for n in names if n != metric.partition("/")[2])]
    last = last_rows(rows, split)
    lines = [f"| {' | '.join([*map(short, varied), 'n', *(f'{split} {name}' for name in names[:MOST])])} |"]
    lines.append("|---" * (len(varied) + 1 + len(names[:MOST])) + "|")
    for values, trials in combinations(rows, varied).items():
        there = [last[t] for t in trials if t in last]
        n = f"{len(there)}" if len(there) == len(trials) else f"{len(there)} of {len(trials)}"
        cells = [mean_and_error([row[name] for row in there if row.get(name) is not None]) for name in names[:MOST]]
        lines.append(f"| {' | '.join([*map(shown, values), n, *cells])} |")
    return "\n".join(lines) + "\n"


def shown(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def mean_and_error(values) -> str:
    """'103.4 (0.04)': the mean, and its standard error where there are two values or more."""
    if not values:
        return ""
    mean = f"{np.mean(values):.4g}"
    return f"{mean} ({np.std(values, ddof=1) / math.sqrt(len(values)):.2g})" if len(values) > 1 else mean


def curve(rows, trials, split, name):
    """Steps, and the values [steps, trials] there of those trials that have all of them."""
    found = {t: {row["step"]: row[name] for row in rows if row["trial"] == t and row["split"] == split and row.get(name) is not None} for t in trials}
    steps = sorted({step for line in found.values() for step in line})
    whole = [line for line in found.values() if len(line) == len(steps)]
    return np.array(steps), np.array([[line[step] for line in whole] for step in steps]).reshape(len(steps), -1)


def draw(rows, varied, metric, axes):
    """The metric over steps: a line per combination of varied values, the mean over its seeds, and a band of one standard error."""
    import matplotlib

    split, name = parts_of(metric, rows, varied)
    lines = combinations(rows, varied)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(lines))) if len(lines) > 1 else ["tab:blue"]
    for colour, (values, trials) in zip(colours, lines.items(), strict=True):
        steps, y = curve(rows, trials, split, name)
        if not y.size:
            continue
        label = ", ".join(f"{short(k)} = {shown(v)}" for k, v in zip(varied, values, strict=True)) or f"{y.shape[1]} trials"
        axes.plot(steps, y.mean(1), color=colour, linewidth=1.3, label=label)
        if y.shape[1] > 1:
            error = y.std(1, ddof=1) / math.sqrt(y.shape[1])
            axes.fill_between(steps, y.mean(1) - error, y.mean(1) + error, color=colour, alpha=0.25, linewidth=0)
    axes.set(xlabel="step", ylabel=f"{split} {name}")
    axes.grid(alpha=0.3)
    if len(lines) <= 16:
        axes.legend(fontsize=7)


def prepare():
    """Import what `save_figure` needs, which takes half a second."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.figure  # noqa: F401


def save_figure(path: Path, figure, size=(6, 4), panels=(1, 1)):
    """A picture, .png or .pdf, as `figure(axes)` draws it; the same bytes of the same rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    drawing, buffer, kind = Figure(figsize=size, layout="constrained", dpi=100), io.BytesIO(), path.suffix[1:]
    figure(drawing.subplots(*panels))
    drawing.savefig(buffer, format=kind, metadata=dict(CreationDate=None) if kind == "pdf" else None)
    write_atomically(path, buffer.getvalue())


def save(folder: Path, table: str, figure, names=("figure.png", "figure.pdf"), **more):
    """table.md and the figure."""
    write_atomically(folder / "table.md", table)
    for name in names:
        save_figure(folder / name, figure, **more)

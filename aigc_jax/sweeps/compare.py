"""Comparison of runs: the differences of their configs, their last rows and curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aigc_jax.core import config as configs
from aigc_jax.sweeps import plots, tables
from aigc_jax.sweeps.evidence import Results
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.disk import disk_errors
from aigc_jax.utils.errors import require
from aigc_jax.utils.text_table import table

MOST = 8  # most columns of a table
WIDTH = 24  # characters of a value in a table with one line per run


def find_differences(runs: list[RunDir]) -> dict[str, list[str]]:
    """Return {key: value in each run} of the config keys whose values differ."""
    leaves = [configs.flatten_config(configs.from_json(run.config()["config"])) for run in runs]
    keys = dict.fromkeys(key for config in leaves for key in config)
    values = {key: [json.dumps(config.get(key)) for config in leaves] for key in keys}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


def names_of(runs: Sequence[RunDir]) -> list[str]:
    """Return the runs' directory names, with enough parents to make them unique."""
    parts = [run.path.absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{i}: {'/'.join(p[-1:])}" for i, p in enumerate(parts)]


def last_values(rows: list[dict], names: Sequence[str]) -> dict[str, list]:
    """Return {"split metric": last value of each run}, with each split's last step."""
    out = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        last = tables.last_rows(rows, split)
        for metric in ("step", *tables.metrics_in(rows, split, ())):
            out[f"{split} {metric}"] = [last[n].get(metric) if n in last else None for n in names]
    return out


def shared_metric(rows: list[dict], best: str) -> str:
    """Return config.best_metric if a row has it, else the metric of most runs; ties go
    to the valid split, then train, then test.
    """
    order = ("valid", "train", "test")
    runs: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name in tables.metrics_in([row], row["split"], ()):
            runs.setdefault((row["split"], name), set()).add(row["trial"])
    split, _, name = best.partition("/")
    if (split, name) in runs:
        return best
    rank = lambda key: (len(runs[key]), -order.index(key[0]) if key[0] in order else -len(order))
    require(runs, "the runs have no number in any row")
    return "/".join(max(runs, key=rank))


def side_by_side(columns: dict[str, list], names: Sequence[str], title: str) -> str:
    """Return a table with one column per run; for more than MOST runs, a table with one
    line per run and the first MOST keys, followed by the names of the other keys.
    """
    if len(names) <= MOST:
        return table([(key, *values) for key, values in columns.items()], (title, *names))
    shown, rest = list(columns)[:MOST], list(columns)[MOST:]
    lines = [(name, *(clip_text(columns[key][i]) for key in shown)) for i, name in enumerate(names)]
    more = f"\nand {len(rest)} more: {', '.join(rest)}" if rest else ""
    return table(lines, (title, *shown)) + more


def clip_text(value: Any) -> Any:
    """Shorten a text to WIDTH characters: its start and its end, where paths differ."""
    if not isinstance(value, str) or len(value) <= WIDTH:
        return value
    return f"{value[: WIDTH // 3]}...{value[-(WIDTH - WIDTH // 3 - 3) :]}"


def compare_runs(paths: Sequence[str | Path], out: Path | None, metric: str = "") -> str:
    """Return the tables as text, and plot the curves of a metric to the file `out`."""
    runs = [RunDir(path) for path in paths]
    for run in runs:
        require(
            not (run / "sweep.json").exists(),
            f"{run.path} is a sweep: compare its trials, {run.path}/trials/*",
        )
    require(len(runs) > 1, "compare needs two runs or more")
    names, columns = names_of(runs), find_differences(runs)
    rows = [
        dict(trial=name) | row for name, run in zip(names, runs, strict=True) for row in run.rows()
    ]
    require(rows, f"{', '.join(map(str, paths))} have no row yet")
    metric = metric or shared_metric(rows, runs[0].config()["config"]["best_metric"])
    split, name = tables.parts_of(metric, rows, ())
    statuses = [run.known_status() for run in runs]
    trials = [dict(trial=n, run=n, status=s) for n, s in zip(names, statuses, strict=True)]
    results, last = Results(rows, trials, ["run"]), last_values(rows, names)
    first = [f"{split} step", f"{split} {name}"]
    last = {key: last[key] for key in dict.fromkeys([*first, *last])}
    notes = [*tables.missing_trials(results, split, name), *runs_lacking(rows, names, split, name)]
    if out is not None:
        draw = lambda axes: plots.draw_curves(results, metric, axes)
        with disk_errors(out):
            plots.save_figure(out, draw, size=plots.size_for(len(names)), notes=notes)
    return "\n\n".join(
        [side_by_side(columns, names, "config"), side_by_side(last, names, "last row"), *notes]
    )


def runs_lacking(rows: list[dict], names: Sequence[str], split: str, name: str) -> list[str]:
    """Return a note with the runs that have no value of the metric."""
    curves = plots.trial_curves(rows, set(names), split, name)
    absent = [n for n in names if n not in curves]
    return [f"No {split}/{name} of: {', '.join(absent)}."] * bool(absent)

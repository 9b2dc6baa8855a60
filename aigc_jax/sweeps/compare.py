"""Comparison of runs: the differences of their configs, their last rows and curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aigc_jax.sweeps import plots, tables
from aigc_jax.sweeps.curves import collect_curves, describe_curves, extract_curves
from aigc_jax.sweeps.evidence import Results
from aigc_jax.training import config as configs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.disk import convert_disk_errors
from aigc_jax.utils.errors import require
from aigc_jax.utils.text_table import Table

MOST = 8  # most columns of a table
WIDTH = 24  # characters of a value in a table with one line per run


def find_config_differences(runs: list[RunDir]) -> dict[str, list[str]]:  # {key: JSON by run}
    """Return {key: value in each run} of the config keys whose values differ."""
    leaves = [
        configs.flatten_config(configs.from_json_dict(run.read_config_json()["config"]))
        for run in runs
    ]
    keys = dict.fromkeys(key for config in leaves for key in config)
    values = {key: [json.dumps(config.get(key)) for config in leaves] for key in keys}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


def unique_run_names(runs: Sequence[RunDir]) -> list[str]:  # last parts of their paths
    """Return the runs' directory names, with enough parents to make them unique."""
    parts = [run.path.absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{i}: {'/'.join(p[-1:])}" for i, p in enumerate(parts)]


def last_values_by_metric(
    rows: list[dict], run_names: Sequence[str]
) -> dict[str, list]:  # {"split metric": one value per run}
    """Return {"split metric": last value of each run}, with each split's last step.

    Args:
      rows: rows of all runs, each with `trial`, the run's name.
      run_names: the runs, in the order of the values; a run without a value has None.
    """
    out = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        last_rows = tables.last_rows(rows, split)
        for metric in ("step", *tables.list_metric_names(rows, split, ())):
            out[f"{split} {metric}"] = [
                last_rows[n].get(metric) if n in last_rows else None for n in run_names
            ]
    return out


def choose_common_metric(rows: list[dict], best_metric: str) -> str:  # "split/name"
    """Return config.best_metric if a row has it, else the metric of most runs; ties go
    to the valid split, then train, then test.
    """
    order = ("valid", "train", "test")
    runs: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name in tables.list_metric_names([row], row["split"], ()):
            runs.setdefault((row["split"], name), set()).add(row["trial"])
    split, _, name = best_metric.partition("/")
    if (split, name) in runs:
        return best_metric
    rank = lambda key: (len(runs[key]), -order.index(key[0]) if key[0] in order else -len(order))
    require(runs, "the runs have no number in any row")
    return "/".join(max(runs, key=rank))


def make_side_by_side(
    values_by_key: dict[str, list], run_names: Sequence[str], first_header: str
) -> list[Table | str]:
    """Return a table with one column per run; for more than MOST runs, a table with one
    line per run and the first MOST keys, and a line that names the other keys.

    Args:
      values_by_key: {key: value of each run}.
      run_names: the runs.
      first_header: head of the first column.
    """
    if len(run_names) <= MOST:
        rows: list[tuple] = [(key, *values) for key, values in values_by_key.items()]
        return [Table((first_header, *run_names), rows)]
    shown, rest = list(values_by_key)[:MOST], list(values_by_key)[MOST:]
    rows = [
        (name, *(shorten_text(values_by_key[key][i]) for key in shown))
        for i, name in enumerate(run_names)
    ]
    more = [f"and {len(rest)} more: {', '.join(rest)}"] if rest else []
    return [Table((first_header, *shown), rows), *more]


def shorten_text(value: Any) -> Any:  # other values are returned unchanged
    """Shorten a text to WIDTH characters: its start and its end, where paths differ."""
    if not isinstance(value, str) or len(value) <= WIDTH:
        return value
    return f"{value[: WIDTH // 3]}...{value[-(WIDTH - WIDTH // 3 - 3) :]}"


def _open_runs(paths: Sequence[str | Path]) -> list[RunDir]:
    runs = [RunDir(path) for path in paths]
    for run in runs:
        require(
            not (run / "sweep.json").exists(),
            f"{run.path} is a sweep: compare its trials, {run.path}/trials/*",
        )
    require(len(runs) > 1, "compare needs two runs or more")
    return runs


def compare_runs(
    paths: Sequence[str | Path], figure_path: Path | None, metric: str = ""
) -> list[Table | str]:  # tables and notes
    """Return the tables and notes, and plot the curves of a metric.

    Args:
      paths: the run directories, at least two.
      figure_path: the .png or .pdf of the figure; None: no figure.
      metric: such as "valid/loss"; by default config.best_metric of the first run, or
        the metric of most runs (`choose_common_metric`).

    Raises:
      UserError: fewer than two runs, a sweep, no rows, or no row with the metric.
    """
    runs = _open_runs(paths)
    names, columns = unique_run_names(runs), find_config_differences(runs)
    rows = [
        dict(trial=name) | row
        for name, run in zip(names, runs, strict=True)
        for row in run.read_rows()
    ]
    require(rows, f"{', '.join(map(str, paths))} have no row yet")
    metric = metric or choose_common_metric(
        rows, runs[0].read_config_json()["config"]["best_metric"]
    )
    split, name = tables.parse_metric(metric, rows, ())
    statuses = [run.describe_status() for run in runs]
    trials = [dict(trial=n, run=n, status=s) for n, s in zip(names, statuses, strict=True)]
    results, last = Results(rows, trials, ["run"], noun="run"), last_values_by_metric(rows, names)
    first = [f"{split} step", f"{split} {name}"]
    last = {key: last[key] for key in dict.fromkeys([*first, *last])}
    notes = [
        *tables.describe_missing_trials(results, split, name),
        *describe_runs_without_metric(rows, names, split, name),
    ]
    if figure_path is not None:
        drawing = plots.Drawing(
            lambda axes: plots.draw_curves(results, metric, axes),
            plots.choose_figure_size(len(names)),
            notes=[*notes, *describe_curves(collect_curves(results, metric), metric, results)],
        )
        with convert_disk_errors(figure_path):
            plots.save_figure(figure_path, plots.make_figure(drawing))
    return [
        *make_side_by_side(columns, names, "config"),
        *make_side_by_side(last, names, "last row"),
        *notes,
    ]


def describe_runs_without_metric(
    rows: list[dict], run_names: Sequence[str], split: str, metric_name: str
) -> list[str]:
    """Return a list of one note, which names the runs that have no value of a metric;
    [] if all have one.

    Args:
      rows: rows of all runs.
      run_names: the runs.
      split: the split of the metric, such as "valid".
      metric_name: its name, such as "loss".
    """
    curves = extract_curves(rows, set(run_names), split, metric_name)
    absent = [n for n in run_names if n not in curves]
    return [f"No {split}/{metric_name} of: {', '.join(absent)}."] * bool(absent)

"""Runs side by side: what differs in their configs, their last rows, their curves."""

import json
from pathlib import Path

from aigc_jax import config as configs
from aigc_jax import tables
from aigc_jax.errors import require
from aigc_jax.results import RunDir, table


def differences(runs: list[RunDir]) -> list[tuple]:
    """(key, value in each run) of the keys of their configs that are not alike."""
    given = [configs.leaves(configs.from_json(run.config()["config"])) for run in runs]
    keys = list(dict.fromkeys(key for config in given for key in config))
    return [(key, *(json.dumps(c.get(key)) for c in given)) for key in keys if len({json.dumps(c.get(key)) for c in given}) > 1]


def names_of(runs) -> list[str]:
    """Their directories' names, with as many parents as make them differ."""
    parts = [run.path.absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{i}: {'/'.join(p[-1:])}" for i, p in enumerate(parts)]


def rows_of(runs) -> list[dict]:
    """All rows, each with its run's name as `trial`."""
    return [dict(trial=name) | row for name, run in zip(names_of(runs), runs, strict=True) for row in run.rows()]


def last_values(rows, names) -> list[tuple]:
    """(split and metric, the last value of each run)."""
    out = []
    for split in dict.fromkeys(row["split"] for row in rows):
        last = tables.last_rows(rows, split)
        for metric in tables.metrics_in(rows, split, ()):
            out.append((f"{split} {metric}", *((last[n].get(metric) if n in last else None) for n in names)))
    return out


def compare(paths, out: Path, metric="") -> str:
    """The tables as text; their curves of one metric go to the picture `out`."""
    runs = [RunDir(path) for path in paths]
    require(len(runs) > 1, "compare needs two runs or more")
    differ, names, rows = differences(runs), names_of(runs), rows_of(runs)
    require(rows, f"{', '.join(map(str, paths))} have no row yet")
    best = runs[0].config()["config"]["best"]
    metric = metric or tables.default_metric(rows, best, ())
    tables.parts_of(metric, rows, ())
    tables.save_figure(out, lambda axes: tables.draw([row | dict(run=row["trial"]) for row in rows], ["run"], metric, axes))
    return "\n\n".join([table(differ, ("config", *names)), table(last_values(rows, names), ("last row", *names))])

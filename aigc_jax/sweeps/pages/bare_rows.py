"""Results of rows without a trials.json, which the function of an experiment wrote:
trials, varied keys and splits are inferred from the columns.
"""

from pathlib import Path
from typing import Any

from aigc_jax.sweeps.evidence import Results, read_rows
from aigc_jax.sweeps.experiment import Experiment

NO_SPLIT = "rows"  # the split of rows without one
MOST_KEYS = 6


def infer_results(folder: Path, experiment: Experiment | None) -> Results:
    """Return the results of rows.csv. Trials are rows that agree in the keys and in the
    seed; their status is "done". Rows without a step are of no trial.

    Args:
      folder: the directory of rows.csv.
      experiment: whose `column` is a key.
    """
    rows = read_rows(folder)
    if not rows or "step" not in rows[0]:
        return Results(rows, [], [])
    keys = infer_keys(list(rows[0]), rows, experiment.column if experiment else "")
    trials: dict[str, dict[str, Any]] = {}
    for row in rows:
        values = {key: row[key] for key in keys}
        seed = {"seed": row["seed"]} if "seed" in row else {}
        name = str(row["trial"]) if "trial" in row else name_trial(values | seed)
        row["trial"] = name
        row.setdefault("split", NO_SPLIT)
        trials.setdefault(name, dict(trial=name, **values, **seed, status="done"))
    return Results(rows, list(trials.values()), keys)


def infer_keys(columns: list[str], rows: list[dict], part_column: str) -> list[str]:
    """Return the columns of varied keys: those before the seed, the step or the split,
    or, without such a column, those of short texts.
    """
    ends = [columns.index(name) for name in ("seed", "step", "split") if name in columns]
    before = columns[: min(ends)] if ends else []
    texts = [
        name
        for name in columns
        if any(isinstance(row[name], str) for row in rows)
        and all(len(str(row[name])) < 60 for row in rows)
    ]
    keys = [name for name in before or texts if name not in ("trial", "split")]
    if part_column in columns and part_column not in keys:
        keys.insert(0, part_column)
    return keys[:MOST_KEYS]


def name_trial(values: dict[str, Any]) -> str:
    """Return the name of a trial of rows without names."""
    return ", ".join(f"{key} = {value}" for key, value in values.items()) or "rows"

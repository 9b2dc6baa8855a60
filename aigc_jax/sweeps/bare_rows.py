"""Trials, varied keys and splits of rows without a trials.json, which the function of
an experiment wrote: they are inferred from the columns.
"""

from typing import Any

from aigc_jax.sweeps.evidence import Results

NO_SPLIT = "rows"  # the split of rows without one
MOST_TEXTS = 6  # columns of texts that are keys


def infer_trials(results: Results, part_column: str = "") -> Results:
    """Return results with the trials, varied keys and splits that their rows imply;
    unchanged if they have trials, or if the rows have no step. Trials are rows that
    agree in the keys and in the seed; their status is "done".

    Args:
      results: the results.
      part_column: a column that is a key, `Experiment.column`; "": none.
    """
    if results.trials or not results.rows or "step" not in results.rows[0]:
        return results
    rows: list[dict[str, Any]] = []
    trials: dict[str, dict[str, Any]] = {}
    keys = infer_keys(list(results.rows[0]), results.rows, part_column)
    for row in results.rows:
        values = {key: row[key] for key in keys}
        seed = {"seed": row["seed"]} if "seed" in row else {}
        name = str(row["trial"]) if "trial" in row else name_trial(values | seed)
        rows.append(row | dict(trial=name, split=row.get("split", NO_SPLIT)))
        trials.setdefault(name, dict(trial=name, **values, **seed, status="done"))
    return results._replace(rows=rows, trials=list(trials.values()), varied=keys)


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
    keys = [name for name in before or texts[:MOST_TEXTS] if name not in ("trial", "split")]
    if part_column in columns and part_column not in keys:
        keys.insert(0, part_column)
    return keys


def name_trial(values: dict[str, Any]) -> str:
    """Return the name of a trial of rows without names."""
    return ", ".join(f"{key} = {value}" for key, value in values.items()) or "rows"

"""Committed evidence of an experiment: a directory with rows.csv, table.md, figure.png
and environment.json.

Table and figure are made from the rows. The evidence of a sweep also has trials.json,
with the information that the rows lack, such as the trials without a row.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from aigc_jax.sweeps.presentation import PLAIN, Presentation
from aigc_jax.utils import documents


class Results(NamedTuple):
    """The data of a sweep's table and figure."""

    rows: list[dict]  # trial, the keys in `varied`, seed, step, split, values
    trials: list[dict]  # each trial of the sweep: trial, the keys in `varied`, seed, status
    varied: list[str]  # config keys in which trials differ, except the seed
    best: str = ""  # config.best_metric
    metric: str = ""  # the metric to show, such as "test/loss"; "": that of `sweeps.api.Sweep`
    mode: str = "min"  # config.best_mode: "min" or "max"
    view: Presentation = PLAIN  # how they are shown; not stored
    noun: str = "trial"  # or "run"; not stored


def differing_keys(flat_configs: list[dict], leading_keys: Iterable[str] = ()) -> list[str]:
    """Return the keys of {key: value} that differ between configs, those of
    `leading_keys` first.
    """
    keys = dict.fromkeys([*leading_keys, *(key for config in flat_configs for key in config)])
    return [key for key in keys if len({repr(config.get(key)) for config in flat_configs}) > 1]


def list_varied_keys(flat_configs: list[dict], overridden_keys: Sequence[str]) -> list[str]:
    """Return the keys in which configs differ, except the seed and `run.*`, the
    overridden ones first.
    """
    keys = differing_keys(flat_configs, overridden_keys)
    return [key for key in keys if key != "seed" and not key.startswith("run.")]


def to_csv_cell(value: object) -> int | float | str | None:  # others as str
    """Convert a value of a config to a table cell: a number, a text, or None."""
    if value is None or isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return value
    return str(value)


def format_csv(rows: list[dict]) -> str:
    """Return rows as CSV, whose columns are their keys in order of appearance."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_rows(folder: Path, rows: list[dict], environment_file: Path) -> None:  # two files
    """Write rows.csv and environment.json.

    Args:
      folder: the directory, created if necessary.
      rows: dicts of numbers and texts, whose keys become the columns.
      environment_file: the environment.json of a run, which is copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text(format_csv(rows), newline="")
    (folder / "environment.json").write_text(environment_file.read_text())


def replace_rows(folder: Path, key_column: str, rows: list[dict], environment_file: Path) -> None:
    """Write rows as `write_rows`; existing rows whose value of `key_column` is in no
    new row are retained. All new rows have this column.
    """
    new = {str(row[key_column]) for row in rows}  # of "2" the file has the number
    existing = read_rows(folder) if (folder / "rows.csv").is_file() else []
    write_rows(
        folder,
        [row for row in existing if str(row[key_column]) not in new] + rows,
        environment_file,
    )


def parse_csv_cell(text: str) -> int | float | str | None:
    """Parse a CSV cell as an int, a float or a text; an empty cell is None."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def parse_rows(text: str) -> list[dict]:  # of a CSV file
    """Parse rows of CSV, with numbers as numbers and empty cells as None."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [{key: parse_csv_cell(cell) for key, cell in row.items()} for row in reader]


def read_rows(folder: Path) -> list[dict]:  # of rows.csv
    """Return the rows of rows.csv, as `parse_rows` does."""
    with open(folder / "rows.csv", newline="") as f:
        return parse_rows(f.read())


def write_results(
    folder: Path, results: Results, environment_file: Path
) -> None:  # rows, trials, environment
    """Write rows.csv, trials.json and environment.json, a copy of the file
    `environment_file`; `read_results` reads them.
    """
    write_rows(folder, results.rows, environment_file)
    stored = results._asdict()
    fields = {name: value for name, value in stored.items() if name not in ("rows", "view", "noun")}
    documents.write(folder / "trials.json", fields)


def read_results(folder: Path) -> Results | None:  # None without trials.json
    """Read the results that `write_results` wrote; None without a trials.json."""
    fields = documents.read(folder / "trials.json")
    return None if fields is None else Results(rows=read_rows(folder), **fields)

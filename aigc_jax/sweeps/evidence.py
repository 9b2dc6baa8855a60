"""Committed evidence of an experiment: a directory with rows.csv, table.md, figure.png
and environment.json.

Table and figure are made from the rows. The evidence of a sweep also has trials.json,
with the information that the rows lack, such as the trials without a row.
"""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from aigc_jax.utils import documents
from aigc_jax.utils.terminal import print_text


class Results(NamedTuple):
    """The data of a sweep's table and figure."""

    rows: list[dict]  # trial, the keys in `varied`, seed, step, split, values
    trials: list[dict]  # each trial of the sweep: trial, the keys in `varied`, seed, status
    varied: list[str]  # config keys in which trials differ, except the seed
    best: str = ""  # config.best_metric
    metric: str = ""  # the metric to show: "test/loss"; "": the experiment's, or config.best_metric


def differing_keys(configs: list[dict], first: Iterable[str] = ()) -> list[str]:
    """Return the keys of {key: value} that differ between configs, those of `first`
    first.
    """
    keys = dict.fromkeys([*first, *(key for config in configs for key in config)])
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]


def to_cell(value: object) -> int | float | str | None:
    """Convert a value of a config to a table cell: a number, a text, or None."""
    if value is None or isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return value
    return str(value)


def as_csv(rows: list[dict]) -> str:
    """Return rows as CSV, whose columns are their keys in order of appearance."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_rows(folder: Path, rows: list[dict], environment: Path) -> None:
    """Write rows.csv, and environment.json as a copy of a run's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text(as_csv(rows), newline="")
    (folder / "environment.json").write_text(environment.read_text())


def replace_rows(folder: Path, column: str, rows: list[dict], environment: Path) -> None:
    """Write rows as `write_rows`; existing rows whose value of the column is in no new
    row are retained.
    """
    new = {str(row[column]) for row in rows}  # of "2" the file has the number
    existing = read_rows(folder) if (folder / "rows.csv").is_file() else []
    write_rows(folder, [row for row in existing if str(row[column]) not in new] + rows, environment)


def parse_cell(text: str) -> int | float | str | None:
    """Parse a CSV cell as an int, a float or a text; an empty cell is None."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def read_rows(folder: Path) -> list[dict]:
    """Return the rows of rows.csv, with numbers as numbers and empty cells as None."""
    with open(folder / "rows.csv", newline="") as f:
        return [{key: parse_cell(text) for key, text in row.items()} for row in csv.DictReader(f)]


def write_results(folder: Path, results: Results, environment: Path) -> None:
    """Write rows.csv, trials.json and environment.json; inverse of `read_results`."""
    write_rows(folder, results.rows, environment)
    fields = {name: value for name, value in results._asdict().items() if name != "rows"}
    documents.write(folder / "trials.json", fields)


def read_results(folder: Path) -> Results | None:
    """Read the results that `write_results` wrote; None without a trials.json."""
    fields = documents.read(folder / "trials.json")
    return None if fields is None else Results(rows=read_rows(folder), **fields)


def render_figure(
    folder: Path,
    table: str,
    figure: Callable,
    size: tuple[float, float],
    panels: tuple[int, int] = (1, 1),
) -> None:
    """Write table.md, and figure.png as `figure(axes)` draws it.

    Args:
      size: width and height in inches.
      panels: rows and columns; with several panels, axes is an array.
    """
    from matplotlib.figure import Figure

    (folder / "table.md").write_text(table)
    drawing = Figure(figsize=size, layout="constrained", dpi=100)
    figure(drawing.subplots(*panels))
    drawing.savefig(folder / "figure.png")
    print_text(table, end="")

"""Committed evidence of an experiment: a directory of rows.csv, table.md, figure.png,
environment.json.

Table and figure are made from the rows. Of a sweep there is trials.json too: what the
rows alone do not say, such as the trials without a row.
"""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from aigc_jax.utils import documents
from aigc_jax.utils.terminal import print_text


class Results(NamedTuple):
    """What table and figure of a sweep are made from."""

    rows: list[dict]  # trial, the keys in `varied`, seed, step, split, values
    trials: list[dict]  # each trial of the sweep: trial, the keys in `varied`, seed, status
    varied: list[str]  # config keys in which trials differ, but for the seed
    best: str = ""  # config.best
    metric: str = ""  # what is shown: "test/loss"; "": what the experiment or config.best says


def differing_keys(configs: list[dict], first: Iterable[str] = ()) -> list[str]:
    """The keys of {key: value} that differ between configs, those of `first` first."""
    keys = dict.fromkeys([*first, *(key for config in configs for key in config)])
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]


def to_cell(value: object) -> int | float | str | None:
    """A value of a config as a cell of a table: a number, a text, None for nothing."""
    if value is None or isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return value
    return str(value)


def as_csv(rows: list[dict]) -> str:
    """Columns are the keys of all rows in order of appearance."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_rows(folder: Path, rows: list[dict], environment: Path) -> None:
    """rows.csv; environment.json, copied from a run's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text(as_csv(rows), newline="")
    (folder / "environment.json").write_text(environment.read_text())


def replace_rows(folder: Path, column: str, rows: list[dict], environment: Path) -> None:
    """As `write_rows`; old rows stay where no new one has their value of a column."""
    new = {row[column] for row in rows}
    there = read_rows(folder) if (folder / "rows.csv").is_file() else []
    write_rows(folder, [row for row in there if row[column] not in new] + rows, environment)


def number(text: str) -> int | float | str | None:
    """A whole number, a number, a text as it is, None for nothing."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def read_rows(folder: Path) -> list[dict]:
    """Return the rows of rows.csv, with numbers as numbers and empty cells as None."""
    with open(folder / "rows.csv", newline="") as f:
        return [{key: number(text) for key, text in row.items()} for row in csv.DictReader(f)]


def write_results(folder: Path, results: Results, environment: Path) -> None:
    """rows.csv, trials.json and environment.json; `read_results` is the inverse."""
    write_rows(folder, results.rows, environment)
    kept = {name: value for name, value in results._asdict().items() if name != "rows"}
    documents.write(folder / "trials.json", kept)


def read_results(folder: Path) -> Results | None:
    """None where no trials.json was kept."""
    kept = documents.read(folder / "trials.json")
    return None if kept is None else Results(rows=read_rows(folder), **kept)


def render(
    folder: Path,
    table: str,
    figure: Callable,
    size: tuple[float, float],
    panels: tuple[int, int] = (1, 1),
) -> None:
    """table.md, and figure.png as `figure(axes)` draws it; axes is an array where there
    are several panels, rows x columns.
    """
    from matplotlib.figure import Figure

    (folder / "table.md").write_text(table)
    drawing = Figure(figsize=size, layout="constrained", dpi=100)
    figure(drawing.subplots(*panels))
    drawing.savefig(folder / "figure.png")
    print_text(table, end="")

"""The logger `csv`: the rows of a run as one table, WORKDIR/metrics.csv."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from aigc_jax.training.loggers.base import RunInfo, Samples
from aigc_jax.utils import documents


class CsvFile:
    """A line for each row of rows.jsonl, with the union of the columns.

    The file is rewritten from rows.jsonl, which a resumed run truncates, when it is
    opened, and from its own lines when a row has a new column. Values that are not
    finite and columns that a row lacks are empty.
    """

    def __init__(self, run: RunInfo) -> None:
        self._path = run.path / "metrics.csv"
        self._columns: list[str] = []
        self._rewrite(documents.read_lines(run.path / "rows.jsonl", skip_invalid=True))

    def write_row(self, row: dict[str, Any]) -> None:
        """Append a row, after rewriting the file if it has a new column."""
        if not row.keys() <= set(self._columns):
            self._file.close()
            with open(self._path, newline="") as file:
                before = list(csv.DictReader(file))
            self._rewrite([*before, row])
        else:
            self._file.write(self._encode([row]))

    def write_samples(self, samples: Samples) -> None:
        """Samples are not part of the table."""

    def close(self, status: str) -> None:
        """Close the file."""
        self._file.close()

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        """Write these rows to a new file, and open it for more."""
        names = (name for row in rows for name in row)
        self._columns = list(dict.fromkeys(["step", "split", *self._columns, *names]))
        header = dict(zip(self._columns, self._columns, strict=True))
        documents.write_atomically(self._path, self._encode([header, *rows]))
        self._file = open(self._path, "a", newline="", buffering=1)

    def _encode(self, rows: Iterable[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue()

"""Columns of memory-mapped Arrow files: untrusted input, read row by row.

Arrow trusts the offsets in a file, and wrong offsets would read other memory. Each
chunk is therefore validated before it is read for the first time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_jax.utils.errors import UserError, first_line, require
from aigc_jax.utils.files import require_regular_file

if TYPE_CHECKING:
    import pyarrow

AT_ONCE = 1000  # values in memory at once where all rows are read
COPIED_BYTES = 2**24  # that opening a file may copy; more are compressed arrays


def import_pyarrow() -> ModuleType:
    """Return the package pyarrow; raise a UserError where it is not installed."""
    try:
        import pyarrow.ipc
    except ImportError:
        raise UserError(
            "config.data.name = 'hf' needs the package pyarrow: pip install 'aigc_jax[hf]'"
        ) from None
    return pyarrow


def open_table(paths: Sequence[Path]) -> "pyarrow.Table":
    """Return the memory-mapped table of Arrow files in the streaming format; raise a
    UserError where a file is damaged, compressed, or has other columns than the first.
    """
    pa, tables = import_pyarrow(), []
    for path in paths:
        require_regular_file(path)
        before = pa.total_allocated_bytes()
        try:
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
            table.validate()
            names = table.column_names
        except Exception as e:  # a damaged file raises exceptions of many types
            raise UserError(f"{path} cannot be read: {first_line(e)}") from None
        require(
            pa.total_allocated_bytes() - before < COPIED_BYTES,
            f"{path} is compressed and cannot be memory-mapped: save the data set again by "
            "save_to_disk",
        )
        require(len(set(names)) == len(names), f"{path} has two columns of the same name")
        tables.append(table)
    for path, table in zip(paths, tables, strict=True):
        require(
            table.schema.equals(tables[0].schema),
            f"{path} has other columns than {paths[0].name}: {', '.join(table.column_names)}",
        )
    return pa.concat_tables(tables)


class Column:
    """The values of a column as `rows.Rows`.

    Args:
      chunks: the column of a table; of a struct, the values are those of `field`.
      where: the directory and the column, for error messages.
      field: of a struct; "": the column is no struct.
    """

    def __init__(self, chunks: "pyarrow.ChunkedArray", where: str, field: str = "") -> None:
        self.chunks, self.where, self.field = chunks, where, field
        self.starts = np.cumsum([0, *map(len, chunks.iterchunks())])
        self._is_valid = bytearray(chunks.num_chunks)  # whether a chunk was validated

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __iter__(self) -> Iterator[Any]:
        for i in range(self.chunks.num_chunks):
            chunk = self._read_chunk(i)
            for low in range(0, len(chunk), AT_ONCE):
                yield from chunk.slice(low, AT_ONCE).to_pylist()

    def read_rows(self, rows: np.ndarray) -> list:  # [n] -> n values
        """Return the values of these rows; raise a UserError where one is missing or a
        chunk is damaged.
        """
        which = np.searchsorted(self.starts, rows, side="right") - 1
        values = [
            self._read_chunk(i)[row].as_py()
            for i, row in zip(which.tolist(), (rows - self.starts[which]).tolist(), strict=True)
        ]
        for row, value in zip(rows, values, strict=True):
            require(value is not None, f"{self.where} has no value in row {row:,}: remove the row")
        return values

    def read_integers(self) -> np.ndarray:  # int64 [n]
        """Return all values, which are integers or booleans; raise a UserError where
        one is missing.
        """
        parts = [np.zeros(0, np.int64)]
        for i in range(self.chunks.num_chunks):
            chunk = self._read_chunk(i)
            require(chunk.null_count == 0, f"{self.where} has missing values: remove their rows")
            parts.append(chunk.to_numpy(zero_copy_only=False).astype(np.int64))
        return np.concatenate(parts)

    def _read_chunk(self, i: int) -> "pyarrow.Array":
        """Return chunk i, after it was validated once."""
        chunk = self.chunks.chunk(i)
        chunk = chunk.field(self.field) if self.field else chunk
        if not self._is_valid[i]:
            try:
                chunk.validate(full=True)
            except Exception as e:
                raise UserError(f"{self.where} is damaged: {first_line(e)}") from None
            self._is_valid[i] = True
        return chunk

"""Tables of text, plain or extracted from Markdown."""

import html
import re
from typing import NamedTuple

from aigc_jax.utils.quantities import format_count, format_number


class Table(NamedTuple):
    """A table, whose first column is aligned to the left, the others to the right."""

    header: tuple[str, ...]
    rows: list[tuple]  # cells of any type, formatted by `format_value`

    def format_rows(self) -> list[tuple[str, ...]]:  # the header first
        """Return the header and the rows, with all cells as text."""
        return [tuple(map(format_value, row)) for row in (self.header, *self.rows)]

    def __str__(self) -> str:
        text = self.format_rows()
        widths = [max(map(len, column)) for column in zip(*text, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in text
        ]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def format_value(value: object) -> str:  # "-" for None
    """Format the value of a cell: None as "-", numbers as in `quantities`, line breaks
    as \\n.
    """
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return format_count(value)
    return format_number(value) if isinstance(value, float) else str(value).replace("\n", "\\n")


def _parse_cell(text: str) -> str:
    """Return the text of a cell, with its HTML entities as characters."""
    return html.unescape(text.strip())


def parse_markdown(text: str) -> list[Table | str]:
    """Split a Markdown text into its tables and the text between them. A table has a
    line of dashes below its header, and the same number of cells in each line; others
    remain text. Entities in cells, such as &#124;, become characters.
    """
    parts: list[Table | str] = []
    for block in re.split(r"((?:^\|.*\|[ ]*(?:\n|$))+)", text, flags=re.MULTILINE):
        rows = [
            tuple(map(_parse_cell, line.strip()[1:-1].split("|"))) for line in block.splitlines()
        ]
        is_table = len(rows) > 1 and all(re.fullmatch(":?-+:?", cell) for cell in rows[1])
        if is_table and len({len(row) for row in rows}) == 1:
            parts.append(Table(rows[0], rows[2:]))
        elif block.strip("\n"):
            parts.append(block.strip("\n"))
    return parts

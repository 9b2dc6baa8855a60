"""Tables, progress bars and status lines drawn by rich, where it is installed and the
output is a terminal. No other module imports rich.
"""

import contextlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from aigc_jax.utils import terminal
from aigc_jax.utils.terminal import Bar, escape_controls, escape_unencodable
from aigc_jax.utils.text_table import Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table as RichTable
    from rich.text import Text

GAP = 3  # characters between the columns of a table
BAR = 40  # most characters of a progress bar beside its text
SHORTEST_BAR = 12  # a shorter bar is drawn below its text


@contextlib.contextmanager
def draw_by_rich() -> Iterator[None]:
    """Draw tables and status lines by rich within the context. rich is imported when
    the first of them is drawn.
    """
    renderer = RichRenderer() if importlib.util.find_spec("rich") else None
    terminal.set_renderer(renderer)
    try:
        yield
    finally:
        terminal.set_renderer(None)
        if renderer is not None:
            renderer.end_status()  # a status line that is not ended hides the cursor


class RichRenderer:
    """The `terminal.Renderer` of the command line."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def print_table(self, table: Table, file: TextIO) -> None:
        """Print a table to a terminal. Cells break between words if the terminal is
        narrow; if their words do not fit, the terminal breaks the lines.
        """
        console = make_console(file)
        drawn, width = draw_table(table, file, console.width)
        console.width = max(console.width, width)
        console.print(drawn, crop=False)

    def write_status(self, blocks: Sequence[Bar | Table], file: TextIO) -> None:
        """Replace the status of a terminal; what exceeds its height is not shown."""
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=make_console(file),
                auto_refresh=False,
                # Text that is printed meanwhile appears above the line.
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        width = self._live.console.width
        drawn: list[RenderableType] = []
        for is_bar, part in itertools.groupby(blocks, lambda block: isinstance(block, Bar)):
            if is_bar:
                drawn.append(draw_bars([bar for bar in part if isinstance(bar, Bar)], file, width))
            else:
                drawn += [draw_table(x, file, width)[0] for x in part if isinstance(x, Table)]
        self._live.update(Group(*drawn), refresh=True)

    def end_status(self) -> None:
        """End the status line."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()


def fit_widths(widest: list[int], narrowest: list[int], room: int) -> list[int]:
    """Return the width of each column of a table.

    Args:
      widest: widths of the longest cells.
      narrowest: widths of the longest words.
      room: the sum of the widths, if the words fit; else the cells are not broken.
    """
    if sum(narrowest) > room:
        return widest
    spare, widths = room - sum(narrowest), []
    for most, least in zip(widest, narrowest, strict=True):
        widths.append(min(most, least + spare))
        spare -= widths[-1] - least
    return widths


def longest_word(text: "Text") -> int:  # in characters of the terminal
    """Return the width of the longest word of a text."""
    from rich.cells import cell_len

    return max(map(cell_len, text.plain.split()), default=0)


def make_console(file: TextIO) -> "Console":
    """Return a console that changes no text and takes the stream for a terminal."""
    from rich.console import Console

    return Console(file=file, force_terminal=True, highlight=False, markup=False, emoji=False)


def make_text(text: str, file: TextIO) -> "Text":
    """Return untrusted text for a console that writes to `file`."""
    from rich.text import Text

    return Text(escape_unencodable(escape_controls(text), file), overflow="fold")


def draw_table(table: Table, file: TextIO, width: int) -> "tuple[RichTable, int]":
    """Return a table for a console of `width` characters that writes to `file`, and the
    width of the table, which is larger where its words do not fit.
    """
    from rich import box
    from rich.table import Table as RichTable

    drawn = RichTable(box=box.SIMPLE_HEAD)
    drawn.show_edge = drawn.pad_edge = False
    rows = [[make_text(cell, file) for cell in row] for row in table.format_rows()]
    columns = list(zip(*rows, strict=True))
    widths = fit_widths(
        [max(cell.cell_len for cell in column) for column in columns],
        [max(map(longest_word, column)) for column in columns],
        width - GAP * (len(columns) - 1),
    )
    for i, (column, cells) in enumerate(zip(columns, widths, strict=True)):
        drawn.add_column(column[0], justify="right" if i else "left", width=cells)
    for row in rows[1:]:
        drawn.add_row(*row)
    return drawn, sum(widths) + GAP * (len(widths) - 1)


def draw_bars(bars: Sequence[Bar], file: TextIO, width: int) -> "RenderableType":
    """Draw lines of text with progress bars of one length to their left, or below
    where the terminal is too narrow.

    Args:
      bars: the lines.
      file: the stream that the console writes to.
      width: characters of a line of the terminal.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table as RichTable

    texts = [make_text(bar.text.replace("\n", "\\n"), file) for bar in bars]
    room = width - max(text.cell_len for text in texts) - 1
    if room < SHORTEST_BAR or all(bar.fraction is None for bar in bars):
        lines: list[RenderableType] = []
        for bar, text in zip(bars, texts, strict=True):
            lines += [text] + ([] if bar.fraction is None else [ProgressBar(1.0, bar.fraction)])
        return Group(*lines)
    grid = RichTable.grid(padding=(0, 1))
    for bar, text in zip(bars, texts, strict=True):
        drawn = "" if bar.fraction is None else ProgressBar(1.0, bar.fraction, min(BAR, room))
        grid.add_row(drawn, text)
    return grid

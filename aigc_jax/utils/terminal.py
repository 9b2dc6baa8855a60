"""Output of untrusted text, which may contain control sequences, of tables and of
status lines: plain lines, unless `set_renderer` names an object that draws them.
"""

import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TextIO, TypeVar

from aigc_jax.utils.text_table import Table, parse_markdown

T = TypeVar("T")

# C0 and C1 controls except tabs and line breaks, direction marks and overrides, line
# and paragraph separators, byte order marks, annotations, tags, and halves of surrogate
# pairs.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


NOTEBOOK_SECONDS = 0.5  # between status lines in a notebook


def escape_controls(text: str) -> str:
    """Return the text with Python escapes for characters that a terminal interprets or
    hides.
    """
    return _HIDDEN.sub(lambda found: _escape(found[0]), text)


def print_text(
    text: object = "", file: TextIO | None = None, end: str = "\n", one_line: bool = False
) -> None:
    """Print untrusted text, with escapes for characters that the stream cannot encode.

    Args:
      text: converted by str().
      file: a text stream; sys.stdout by default.
      end: as in `print`.
      one_line: escape line breaks as `\\n` too, for error messages.
    """
    file = file or sys.stdout
    text = escape_controls(str(text))
    if one_line:
        text = text.replace("\n", "\\n")
    print(escape_unencodable(text, file), end=end, file=file, flush=True)


def print_warning(text: str) -> None:  # one line to stderr
    """Print one line to stderr."""
    print_text(text, sys.stderr, one_line=True)


class Bar(NamedTuple):
    """A line of text, and the part of the work that is done."""

    text: str
    fraction: float | None = None  # from 0 to 1; None: unknown, without a bar


class Renderer(Protocol):
    """Draws tables and a status line on a terminal. The command line sets one that uses
    rich; no other package depends on how output is drawn.
    """

    def print_table(self, table: Table, file: TextIO) -> None:
        """Print a table to a terminal."""

    def write_status(self, blocks: Sequence[Bar | Table], file: TextIO) -> None:
        """Replace the status of a terminal by lines with bars and tables."""

    def end_status(self) -> None:
        """End the status line, so that later output begins on a new line."""


_renderer: Renderer | None = None


def set_renderer(renderer: Renderer | None) -> None:
    """Set what draws tables and status lines on terminals; None: plain lines."""
    global _renderer
    _renderer = renderer


def is_live_terminal(file: TextIO) -> bool:
    """Return whether a stream is a terminal whose lines may be overwritten and drawn
    with colours: not of a CI job, not TERM=dumb, and NO_COLOR is not set.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("CI", "0").lower() not in (
        "",
        "0",
        "false",
    )
    return file.isatty() and not plain and os.environ.get("TERM") not in ("dumb", "unknown")


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print a table to `file`, sys.stdout by default."""
    file = file or sys.stdout
    if _renderer is not None and is_live_terminal(file):
        _renderer.print_table(table, file)
    else:
        print_text(table, file)


def print_blocks(blocks: list[Table | str]) -> None:
    """Print texts and tables to sys.stdout, with an empty line between them."""
    for i, block in enumerate(blocks):
        print_text("\n" * (i > 0), end="")
        if isinstance(block, Table):
            print_table(block)
        else:
            print_text(block)


def print_markdown(text: str) -> None:
    """Print a Markdown text to sys.stdout, unchanged, or on a terminal that is drawn on
    with its tables as tables.
    """
    if _renderer is not None and is_live_terminal(sys.stdout):
        print_blocks(parse_markdown(text))
    else:
        print_text(text.removesuffix("\n"))


class StatusLine:
    """A status line that is updated repeatedly: in place on a terminal and in a
    notebook, as a new line in a log.

    Args:
      file: a text stream; sys.stderr by default.
      log_seconds: interval of updates in a log.
      terminal_seconds: interval of updates on a terminal, and in a notebook if it
        exceeds NOTEBOOK_SECONDS.
    """

    def __init__(
        self, file: TextIO | None = None, log_seconds: float = 5.0, terminal_seconds: float = 0.0
    ):
        self.file = file or sys.stderr
        self.terminal, self.notebook = is_live_terminal(self.file), is_notebook(self.file)
        self.seconds = terminal_seconds if self.terminal else log_seconds
        if self.notebook:  # each line is a message to the browser
            self.seconds = max(terminal_seconds, NOTEBOOK_SECONDS)
        self._text, self._written = "", -math.inf
        self._details: Sequence[Bar | Table] = ()

    @property
    def is_in_place(self) -> bool:
        """Whether each line overwrites the previous line."""
        return self.terminal or self.notebook

    def restart_interval(self) -> None:
        """Let the interval until the next update begin now."""
        self._written = time.perf_counter()

    def is_due(self) -> bool:
        """Return whether the interval since the last update has passed."""
        return time.perf_counter() - self._written >= self.seconds

    def write_line(
        self,
        text: str,
        fraction: float | None = None,
        ends_line: bool = False,
        details: Sequence[Bar | Table] = (),
    ) -> None:
        """Write the line if it has changed.

        Args:
          text: the line; line breaks are escaped.
          fraction: the part of the work that is done, from 0 to 1, which the text
            names too; None: unknown.
          ends_line: end the line, so that it is not overwritten.
          details: drawn below the line where a renderer draws, and nowhere else.
        """
        self.restart_interval()
        text = text.replace("\n", "\\n")
        is_drawn = self.terminal and _renderer is not None
        if text != self._text or is_drawn and details != self._details:
            before, self._text, self._details = self._text, text, details
            if self.terminal and _renderer is not None:
                _renderer.write_status([Bar(text, fraction), *details], self.file)
            else:
                self._write_plain(text, before)
        if ends_line:
            self.end_line()

    def _write_plain(self, text: str, before: str) -> None:
        if self.terminal:
            self.file.write("\r\x1b[K")
        elif self.notebook:  # interprets carriage returns, but does not clear a line
            self.file.write("\r")
            text = text.ljust(len(before))
        print_text(text, self.file, end="" if self.is_in_place else "\n")

    def end_line(self) -> None:
        """End the current line, so that later output begins a new line."""
        if self.is_in_place and self._text:
            if self.terminal and _renderer is not None:
                _renderer.end_status()
            else:
                print(file=self.file, flush=True)
        self._text = ""


def iterate_with_progress(verb: str, items: Iterable[T], total: int, noun: str) -> Iterator[T]:
    """Yield the items, and print their number in a status line.

    Args:
      verb: what happens to the items, such as "decoding".
      items: the items.
      total: number of items.
      noun: the kind of the items, such as "images".
    """
    status = StatusLine(terminal_seconds=0.1)
    status.restart_interval()  # a short task has no line
    try:
        for i, item in enumerate(items, 1):
            if status.is_due():
                status.write_line(f"{verb} {i:,} of {total:,} {noun}", i / total)
            yield item
    finally:
        status.end_line()


def is_notebook(file: TextIO) -> bool:
    """Return whether the stream is that of a notebook kernel."""
    return type(file).__module__.partition(".")[0] == "ipykernel"


def escape_unencodable(text: str, file: TextIO) -> str:
    """Return the text with escapes for characters that the stream cannot encode."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"
    )

"""Output to a terminal of untrusted text, which may contain control sequences."""

import re
import sys
from typing import TextIO

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


class StatusLine:
    """A status line that is updated repeatedly: in place on a terminal and in a
    notebook, as a new line in a log. `seconds` is the interval of updates that callers
    respect.

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
        self.terminal, self.notebook = self.file.isatty(), is_notebook(self.file)
        self.seconds = terminal_seconds if self.terminal else log_seconds
        if self.notebook:  # each line is a message to the browser
            self.seconds = max(terminal_seconds, NOTEBOOK_SECONDS)
        self._text = ""

    @property
    def is_in_place(self) -> bool:
        """Whether each line overwrites the previous line."""
        return self.terminal or self.notebook

    def write_line(self, text: str, ends_line: bool = False) -> None:
        """Write the line if it has changed. If `ends_line`, end it, so that it is not
        overwritten.
        """
        if text != self._text:
            before, self._text = self._text, text
            if self.terminal:
                self.file.write("\r\x1b[K")
            elif self.notebook:  # interprets carriage returns, but does not clear a line
                self.file.write("\r")
                text = text.ljust(len(before))
            print_text(text, self.file, end="" if self.is_in_place else "\n")
        if ends_line:
            self.end_line()

    def end_line(self) -> None:
        """End the current line, so that later output begins a new line."""
        if self.is_in_place and self._text:
            print(file=self.file, flush=True)
            self._text = ""


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

"""Text on a terminal, which may come from elsewhere and hold control sequences."""

import re
import sys

# C0 and C1 controls but for tabs and line breaks, marks and overrides of direction,
# separators of lines and paragraphs, byte order marks, annotations, tags, and halves of
# surrogate pairs.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


NOTEBOOK_SECONDS = 0.5  # between status lines of a notebook


def printable(text: str) -> str:
    """The text with Python's escapes for what a terminal obeys or hides."""
    return _HIDDEN.sub(lambda found: _escape(found[0]), text)


def print_text(text="", file=None, end="\n", one_line=False):
    """Print untrusted text, in the characters that the stream can encode.

    one_line: line breaks as `\\n` too, as in an error, which is one sentence.
    """
    file = file or sys.stdout
    text = printable(str(text))
    if one_line:
        text = text.replace("\n", "\\n")
    print(encodable(text, file), end=end, file=file, flush=True)


def print_warning(text):
    """A line on stderr."""
    print_text(text, sys.stderr, one_line=True)


class StatusLine:
    """A line that is written again and again: over itself on a terminal and in a
    notebook, below itself in a log. `seconds` is how long callers wait between two.
    """

    def __init__(self, file=None, log_seconds=5.0, terminal_seconds=0.0):
        self.file = file or sys.stderr
        self.terminal, self.notebook = self.file.isatty(), is_notebook(self.file)
        self.seconds = terminal_seconds if self.terminal else log_seconds
        if self.notebook:  # each line is a message to the browser
            self.seconds = max(terminal_seconds, NOTEBOOK_SECONDS)
        self._text = ""

    @property
    def in_place(self) -> bool:
        """Is a line written over the one before?"""
        return self.terminal or self.notebook

    def write(self, text: str, last=False):
        """Write the line unless it is there; nothing is written over the last."""
        if text != self._text:
            before, self._text = self._text, text
            if self.terminal:
                self.file.write("\r\x1b[K")
            elif self.notebook:  # which obeys carriage returns, and does not clear a line
                self.file.write("\r")
                text = text.ljust(len(before))
            print_text(text, self.file, end="" if self.in_place else "\n")
        if last:
            self.end()

    def end(self):
        """What is printed next begins a line."""
        if self.in_place and self._text:
            print(file=self.file, flush=True)
            self._text = ""


def is_notebook(file) -> bool:
    """Is it a stream of a notebook's kernel?"""
    return type(file).__module__.partition(".")[0] == "ipykernel"


def encodable(text: str, file) -> str:
    """The text with escape sequences for what the stream's encoding does not have."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"
    )

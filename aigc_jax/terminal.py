"""Text on a terminal. Names, reasons and samples come from elsewhere and may hold control sequences."""

import re
import sys

# C0 and C1 controls but for tabs and line breaks, marks and overrides of direction, separators of
# lines and paragraphs, byte order marks, annotations, tags, and halves of surrogate pairs.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with escape sequences, as Python writes them, for what a terminal obeys or hides."""
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


def encodable(text: str, file) -> str:
    """The text with escape sequences for what the stream's encoding does not have."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"

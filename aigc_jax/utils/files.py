"""Reading of files that a user names. Only regular files are opened, so that no FIFO or
device can block a run. Text is UTF-8, without its byte order mark; lines end in a line
feed, optionally after a carriage return.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path

from aigc_jax.utils.errors import UserError, require

BYTE_ORDER_MARK = "\ufeff"
KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def expand_user(path: str) -> Path:
    """Expand `~` in a path, unless the user does not exist."""
    return Path(os.path.expanduser(path))


def why_not_regular(path: str | Path) -> str:  # "" for a regular file
    """Return why a path is not a regular file, such as "is a FIFO" or "no such file",
    or "" for a regular file. Links are followed.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as e:  # ValueError: a path with a NUL
        return getattr(e, "strerror", None) or str(e)
    if stat.S_ISREG(mode):
        return ""
    return "is " + next((kind for is_kind, kind in KINDS if is_kind(mode)), "no regular file")


def is_regular_file(path: str | Path) -> bool:
    """Return whether a path is a regular file, or a link to one."""
    return why_not_regular(path) == ""


def require_regular_file(path: str | Path, shown_name: str = "") -> None:
    """Raise a UserError unless the path is a regular file.

    Args:
      path: a path; links are followed.
      shown_name: denotes the file in the message, such as "config.data.path = 'x.npz'";
        the path by default.
    """
    obstacle = why_not_regular(path)
    if obstacle:
        if obstacle.startswith("is "):
            raise UserError(f"{shown_name or path} {obstacle}, and must be a regular file")
        raise UserError(f"{shown_name or path}: {obstacle}")


def open_regular_file(path: str | Path, shown_name: str = "") -> BufferedReader:
    """Open a regular file for reading bytes; raise a UserError for any other path,
    without blocking.

    Args:
      path: a path; links are followed.
      shown_name: denotes the file in the message; the path by default.
    """
    require_regular_file(path, shown_name)
    try:
        # does not block if a FIFO has replaced the file meanwhile
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise UserError(f"{shown_name or path}: {e.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{shown_name or path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: str | Path, shown_name: str = "") -> str:
    """Return the exact text of a UTF-8 file, without a byte order mark; raise a
    UserError as `open_regular_file` and `decode_text` do, with `shown_name` or the
    path.
    """
    with open_regular_file(path, shown_name) as f:
        return decode_text(f.read(), shown_name or path)


def decode_text(content: bytes, shown_name: object) -> str:
    """Decode UTF-8 and remove the byte order mark; raise a UserError that names the
    first invalid byte.

    Args:
      content: the bytes of a file.
      shown_name: denotes the file in the message.
    """
    require(
        content[:2] not in (b"\xff\xfe", b"\xfe\xff"),
        f"{shown_name} is UTF-16 text by its byte order mark; convert it to UTF-8",
    )
    try:
        return content.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as e:
        raise UserError(f"{shown_name} is not UTF-8 text: {e.reason} at byte {e.start:,}") from None


def split_lines(text: str) -> list[str]:
    r"""Split a text into lines at \n and \r\n only: not at form feeds, U+0085 or
    U+2028. Line n has index n - 1.
    """
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]

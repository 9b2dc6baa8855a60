"""Files that a user names. Regular files alone are opened, so that no FIFO or device
can hang a run; text is UTF-8 without its byte order mark; lines end in a line feed,
perhaps after a carriage return.
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
    """The path with `~` replaced; where there is no such user, as it is."""
    return Path(os.path.expanduser(path))


def find_obstacle(path: str | Path) -> str:
    """Why a path is no regular file, such as "is a FIFO" or "no such file"; "" where it
    is one. Links are followed.
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


def is_regular(path) -> bool:
    """Return whether a path is a regular file, or a link to one."""
    return find_obstacle(path) == ""


def require_regular(path, name: str = ""):
    """Raise a UserError unless the path is a regular file. name: what to call it, such
    as "config.data.path = 'x.npz'".
    """
    obstacle = find_obstacle(path)
    if obstacle:
        if obstacle.startswith("is "):
            raise UserError(f"{name or path} {obstacle}, and must be a regular file")
        raise UserError(f"{name or path}: {obstacle}")


def open_regular(path: str | Path, name: str = "") -> BufferedReader:
    """A regular file, opened to read bytes; anything else is a UserError at once."""
    require_regular(path, name)
    try:
        # a FIFO that was put there meanwhile does not block
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise UserError(f"{name or path}: {e.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{name or path} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_text(path: str | Path, name: str = "") -> str:
    """The text of a file of UTF-8 to the byte, but for its byte order mark."""
    with open_regular(path, name) as f:
        return decode_text(f.read(), name or path)


def decode_text(content: bytes, name: object) -> str:
    """UTF-8 without its byte order mark; a UserError names the byte that is none."""
    require(
        content[:2] not in (b"\xff\xfe", b"\xfe\xff"),
        f"{name} is UTF-16 text, as its byte order mark says; convert it to UTF-8",
    )
    try:
        return content.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as e:
        raise UserError(f"{name} is no UTF-8 text: {e.reason} at byte {e.start:,}") from None


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, which end in \n or \r\n alone: a form feed, U+0085 and
    U+2028 do not end one. Line n is at place n - 1.
    """
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]

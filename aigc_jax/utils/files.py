"""Reading of files that a user names. Only regular files are opened, so that no FIFO or
device can block a run. Text is UTF-8, without its byte order mark; lines end in a line
feed, optionally after a carriage return.
"""

import itertools
import os
import re
import stat
from io import BufferedReader
from pathlib import Path

from aigc_jax.utils.errors import UserError, format_suggestion, require

BYTE_ORDER_MARK = "\ufeff"
MISSING = "no such file"
MOST_NAMES = 10_000  # entries of a directory to suggest from
SIMILAR = 0.7  # least similarity of a suggested file name
KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


# gs://bucket, and gs:/bucket, which `pathlib` makes of it. A drive of Windows has one
# letter.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def require_local_path(path: str | Path, shown_name: str = "") -> None:
    """Raise a UserError for a URL such as gs://bucket/run: every file is read and
    written through the file system.

    Args:
      path: a path that a user named.
      shown_name: denotes the path in the message, such as "config.data.path =
        'gs://bucket'"; the path by default.
    """
    if _URL.match(str(path)):
        raise UserError(
            f"{shown_name or path} is a URL, and aigc_jax reads and writes only directories of "
            "the file system: mount the storage (gcsfuse for gs://, mount-s3 for s3://) and name "
            "a directory of the mounted disk, as docs/guides/data.md shows"
        )


def expand_user(path: str) -> Path:
    """Expand `~` in a path, unless the user does not exist; refuse a URL as
    `require_local_path` does.
    """
    require_local_path(path)
    return Path(os.path.expanduser(path))


def why_not_regular(path: str | Path) -> str:  # "" for a regular file
    """Return why a path is not a regular file, such as "is a FIFO" or "no such file",
    or "" for a regular file. Links are followed.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError) as e:  # ValueError: a path with a NUL
        return getattr(e, "strerror", None) or str(e)
    if stat.S_ISREG(mode):
        return ""
    return "is " + next((kind for is_kind, kind in KINDS if is_kind(mode)), "no regular file")


def is_regular_file(path: str | Path) -> bool:
    """Return whether a path is a regular file, or a link to one."""
    return why_not_regular(path) == ""


def suggest_sibling(path: str | Path) -> str:  # "; did you mean 'x'?" or ""
    """Return a suggestion of the entry of a path's directory with the nearest name, or
    "" where none is near.
    """
    try:
        with os.scandir(Path(path).parent) as entries:
            names = [entry.name for entry in itertools.islice(entries, MOST_NAMES)]
    except (OSError, ValueError):  # no such directory, or a path with a NUL
        return ""
    return format_suggestion(Path(path).name, sorted(names), SIMILAR)


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
        near = suggest_sibling(path) if obstacle == MISSING else ""
        raise UserError(f"{shown_name or path}: {obstacle}{near}")


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

"""Disk space, file-size limits and disk errors; digests of files; the directory of
files that can be regenerated.
"""

import contextlib
import errno
import hashlib
import os
import re
import resource
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from aigc_jax.utils.errors import UserError


@contextlib.contextmanager
def convert_disk_errors(path: str | Path) -> Iterator[None]:  # OSError -> UserError
    """Convert operating-system errors on the work directory to UserErrors; a full disk
    and a file-size limit are named.

    Args:
      path: the directory that the code in the context writes to, for messages.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:
        if fault := describe_disk_fault(e, path):
            raise UserError(f"{fault} and run the same command again") from e
        if isinstance(e, OSError):
            raise UserError(f"cannot write to {path}: {e.strerror or e}") from e
        raise


def describe_disk_fault(error: BaseException, path: str | Path) -> str:  # "" for other errors
    """Return why the disk rejects writes, and the remedy, or "" for other errors. Orbax
    reports these faults in the text of other exceptions, which is searched too.

    Args:
      error: any exception.
      path: the directory or file that was written, for the message.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "ENOSPC" in text:
        return f"the disk of {path} is full; saved files are intact: free some space"
    if number == errno.EFBIG or "File too large" in text:
        return (
            f"a file of {path} exceeds the file-size limit; saved files are intact: raise the "
            "limit (ulimit -f)"
        )
    return ""


def describe_error(error: BaseException, path: str | Path) -> str:
    """Return the fault of the disk, or the type and first line of any other error.

    Args:
      error: any exception.
      path: as in `describe_disk_fault`.
    """
    return describe_disk_fault(error, path) or f"{type(error).__name__}: {error}".splitlines()[0]


def check_disk_space(directory: Path, file_sizes: Iterable[int]) -> None:  # in bytes; or OSError
    """Raise an OSError if files of these sizes, in bytes, cannot be written. Checked in
    advance, because Orbax floods the terminal when a write fails.
    """
    file_sizes, limit, error = list(file_sizes), resource.getrlimit(resource.RLIMIT_FSIZE)[0], 0
    if shutil.disk_usage(directory).free < 1.05 * sum(file_sizes) + 2**20:
        error = errno.ENOSPC
    elif limit != resource.RLIM_INFINITY and max(file_sizes, default=0) > limit:
        error = errno.EFBIG
    if error:
        raise OSError(error, os.strerror(error), str(directory.with_suffix("")))


def cache_dir(kind: str) -> Path:  # ~/.cache/aigc_jax/KIND, not created
    """Return the directory of this user's regenerable files of a kind, below
    $XDG_CACHE_HOME or ~/.cache.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aigc_jax" / kind


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raise an OSError if it cannot be read."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def hide_paths(word: str, repository: Path) -> str:  # of a command-line word
    """Return a command-line word without private paths: a path that leads out of the
    working directory becomes relative to the repository or, outside of the repository,
    is reduced to its last component.
    """

    def shorten(part):
        if not part.startswith(("/", "~", "..")):
            return part
        path = Path(os.path.normpath(Path(part).expanduser().absolute()))
        return str(path.relative_to(repository)) if path.is_relative_to(repository) else path.name

    return "".join(shorten(part) for part in re.split(r"([=,:;'\"()\[\]\s]+)", word))

"""Memory of the host, and out-of-memory errors of Python, NumPy and XLA as user errors.
This module does not import jax.
"""

import contextlib
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from aigc_jax.utils.errors import UserError, require
from aigc_jax.utils.quantities import format_size

# All errors of XLA have the type jax.errors.JaxRuntimeError. A full disk is
# RESOURCE_EXHAUSTED too.
EXHAUSTED = re.compile(r"RESOURCE_EXHAUSTED|out of memory|std::bad_alloc", re.IGNORECASE)
# "Out of memory while trying to allocate 1073741824 bytes" (XLA), "Unable to allocate
# 74.5 GiB for an array" (NumPy), "Used 20.54G of 15.48G hbm" (TPUs).
AMOUNT = re.compile(r"(?:allocat\w*|used)\s+(?:request for )?(\d[\d.]*)\s*([kmgt]?)", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


class OutOfMemoryError(UserError):
    """The memory of a device or of the host was exhausted: the same command may succeed
    with a smaller program or on another machine.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports exhausted memory, of a device or the host."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and EXHAUSTED.search(text) is not None
        and "No space left" not in text
    )


def parse_requested_bytes(text: str) -> int | None:  # None: the message has no amount
    """Return the bytes that an out-of-memory message says were requested, else None."""
    found = AMOUNT.search(text)
    # All these libraries count in powers of 1024.
    return int(float(found[1]) * 1024 ** POWERS[found[2].upper()]) if found else None


def available_host_bytes() -> int | None:  # None: unknown
    """Return the memory that this process can still allocate on the host: the free
    memory of the machine, or less by a limit of the process (ulimit -v).
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(
            1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")
        )
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, StopIteration, ValueError):
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return free
    return max(0, min(free, limit - pages * resource.getpagesize()))


def physical_bytes() -> int:
    """Return the size of this machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_fits_memory(num_bytes: int, contents: str, remedy: str = "") -> None:
    """Raise a UserError where data would not fit in the memory of this machine.

    Args:
      num_bytes: size of the data in memory.
      contents: the subject of the message, such as "FILE.npz: its arrays".
      remedy: the end of the message; "": none.
    """
    require(
        num_bytes < physical_bytes(),
        f"{contents} need {format_size(num_bytes)}, but this machine has "
        f"{format_size(physical_bytes())} of memory{remedy and '; '}{remedy}",
    )


def describe_exhaustion(error: BaseException, available: int | None) -> str:
    """Return what an out-of-memory error says: "out of memory: 40 GB were requested, 23
    GB are available".

    Args:
      error: the error.
      available: in bytes; None: unknown.
    """
    requested = parse_requested_bytes(str(error))
    amounts = [] if requested is None else [f"{format_size(requested)} were requested"]
    amounts += [] if available is None else [f"{format_size(available)} are available"]
    return "out of memory" + (f": {', '.join(amounts)}" if amounts else "")


@contextlib.contextmanager
def convert_memory_errors(
    subject: str, remedy: str, query_available: Callable[[], int | None] = available_host_bytes
) -> Iterator[None]:  # -> OutOfMemoryError
    """Convert out-of-memory errors to user errors.

    Args:
      subject: the beginning of the message, which names what needed the memory.
      remedy: the end of the message.
      query_available: returns the bytes that are available; None: unknown.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise
        what = describe_exhaustion(e, query_available())
        raise OutOfMemoryError(f"{subject}: {what}; {remedy}") from e

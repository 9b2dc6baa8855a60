"""The lock that launchers of a sweep share while they run jobs on this machine, so that
readers know whether any is left.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from aigc_jax.utils.locks import host_hash, is_held

NAME = ".launcher"


@contextlib.contextmanager
def hold_launcher_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep's directory; several processes may."""
    with open(folder / NAME, "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        lock.truncate(0)
        lock.write(host_hash())
        lock.flush()
        yield


def has_launcher_ended(folder: Path) -> bool:
    """Return whether no launcher holds the lock. False without a launcher so far, or
    where the last one ran on another host.
    """
    try:
        is_here = (folder / NAME).read_text() == host_hash()
    except (OSError, ValueError):
        return False
    return is_here and not is_held(folder / NAME, by_several=True)

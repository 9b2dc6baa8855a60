"""Who works in a directory: `flock` on one host, a heartbeat that every host can see
across several.

Clocks of hosts differ, so no time is compared: another host is alive while its
heartbeat changes, and dead when it did not change in EXPIRES seconds of watching.
"""

import contextlib
import fcntl
import hashlib
import itertools
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from aigc_jax.utils import documents

# Seconds between heartbeats, without one until a lock expires, and between looks.
BEAT, EXPIRES, LOOK = 10.0, 120.0, 0.5

LOCK, HEARTBEAT = ".lock", "heartbeat.json"
# directory -> another host's heartbeat, and when this process saw it first
_watched: dict[Path, tuple[dict, float]] = {}


def _host() -> str:
    """This host, not by name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _beat_of_another_host(path: Path) -> dict | None:
    beat = documents.peek(path / HEARTBEAT)
    return beat if beat and beat["host"] != _host() else None


def _is_alive(path: Path) -> bool:
    """May another host be at work here? True too while its heartbeat was not watched
    for long enough.
    """
    beat = _beat_of_another_host(path)
    if beat is None:
        _watched.pop(path, None)
        return False
    if path not in _watched or _watched[path][0] != beat:
        _watched[path] = beat, time.monotonic()
    return time.monotonic() - _watched[path][1] < EXPIRES


def _wait_for_another_host(path: Path) -> bool:
    """Watch another host's heartbeat: True once it changes, False if it is dead."""
    seen = _beat_of_another_host(path)
    while seen is not None and _is_alive(path):
        time.sleep(LOOK)
        beat = _beat_of_another_host(path)
        if beat not in (None, seen):
            return True
        seen = beat
    return False


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Yields True while this process alone has the directory, or False where another
    has it: at once on this host, as soon as its heartbeat changes on another one.
    """
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if _wait_for_another_host(path):
            yield False
            return
        done, beats = threading.Event(), itertools.count()

        def beat():
            # A full disk stops training where it must write, not here.
            with contextlib.suppress(OSError):
                documents.write(
                    path / HEARTBEAT, dict(host=_host(), pid=os.getpid(), beats=next(beats))
                )

        def keep_beating():
            while not done.wait(BEAT):
                beat()

        beat()
        thread = threading.Thread(target=keep_beating, daemon=True)
        thread.start()
        try:
            yield True
        finally:
            done.set()
            thread.join()
            (path / HEARTBEAT).unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process of this host is inside, for shared files."""
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Has another process the directory at this moment?"""
    if not (path / LOCK).exists():
        return False
    with open(path / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return _is_alive(path)

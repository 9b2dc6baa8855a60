"""Exclusive locks on directories: `flock` between processes of one host, a heartbeat
file between hosts.

Clocks of hosts differ, so timestamps are not compared: another host counts as alive
while its heartbeat changes, and as dead once the heartbeat has not changed during
EXPIRES seconds of observation.
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
from typing import TextIO

from aigc_jax.utils import documents

# Seconds: between heartbeats, without a heartbeat until a lock expires, between polls.
BEAT, EXPIRES, POLL = 10.0, 120.0, 0.5

LOCK, HEARTBEAT = ".lock", "heartbeat.json"
# directory -> (another host's heartbeat, time at which this process first read it)
_watched: dict[Path, tuple[dict, float]] = {}


def host_hash() -> str:
    """Return a hash that identifies this host without its name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _read_other_heartbeat(directory: Path) -> dict | None:
    """Return the heartbeat in the directory, or None if it is absent, damaged or this
    host's own.
    """
    beat = documents.peek(directory / HEARTBEAT)
    return beat if beat and beat["host"] != host_hash() else None


def _is_other_host_alive(directory: Path) -> bool:
    """Return whether another host may hold the directory. True also until its heartbeat
    has been observed for EXPIRES seconds.
    """
    beat = _read_other_heartbeat(directory)
    if beat is None:
        _watched.pop(directory, None)
        return False
    if directory not in _watched or _watched[directory][0] != beat:
        _watched[directory] = beat, time.monotonic()
    return time.monotonic() - _watched[directory][1] < EXPIRES


def _wait_for_another_host(directory: Path) -> bool:
    """Poll another host's heartbeat; return True once it changes, False if the host is
    dead or has none.
    """
    last_beat = _read_other_heartbeat(directory)
    while last_beat is not None and _is_other_host_alive(directory):
        time.sleep(POLL)
        beat = _read_other_heartbeat(directory)
        if beat not in (None, last_beat):
            return True
        last_beat = beat
    return False


@contextlib.contextmanager
def try_lock(directory: Path) -> Iterator[bool]:  # yields whether it is held
    """Yield True while this process holds the directory exclusively, or False if
    another process holds it: immediately for a process of this host, as soon as the
    heartbeat changes for a process of another host.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if _wait_for_another_host(directory):
            yield False
            return
        done, beats = threading.Event(), itertools.count()

        def beat():
            # A full disk must stop training at a required write, not here.
            with contextlib.suppress(OSError):
                documents.write(
                    directory / HEARTBEAT,
                    dict(host=host_hash(), pid=os.getpid(), beats=next(beats)),
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
            (directory / HEARTBEAT).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:  # waits until it is free
    """Wait until no other process of this host holds the lock, and hold it; for files
    that processes share.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_locked(directory: Path) -> bool:  # by another process
    """Return whether another process currently holds the directory."""
    return is_held(directory / LOCK) or _is_other_host_alive(directory)


def is_held(file: Path, by_several: bool = False) -> bool:  # reads only
    """Return whether a process of this host holds the lock on a file, which several may
    share.
    """
    try:
        lock = open(file)
    except OSError:
        return False
    with lock:
        try:
            kind = fcntl.LOCK_EX if by_several else fcntl.LOCK_SH
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def lock_new_file(path: Path) -> TextIO | None:  # None: another process holds it
    """Return an open and locked file, created if necessary, whose directory exists."""
    while True:
        lock = open(path, "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        if os.fstat(lock.fileno()).st_nlink:  # else its last holder has removed it
            return lock
        lock.close()

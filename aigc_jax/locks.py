"""Who works in a directory: `flock` on one host, a heartbeat that every host can see across several."""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import threading
import time
from pathlib import Path

from aigc_jax.results import write_atomically

BEAT, EXPIRES = 10.0, 120.0  # seconds between heartbeats, and after which a silent one counts as dead

LOCK, HEARTBEAT = ".lock", "heartbeat.json"


def _host() -> str:
    """This host, not by name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _elsewhere(path: Path) -> bool:
    """Does another host's heart beat here?"""
    try:
        beat = json.loads((path / HEARTBEAT).read_text())
        return beat["host"] != _host() and time.time() - beat["time"] < EXPIRES
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def hold(path: Path):
    """Yields True while this process alone has the directory, or False at once where another has it."""
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        if _elsewhere(path):
            yield False
            return
        done = threading.Event()

        def beat():
            with contextlib.suppress(OSError):  # a full disk stops no training here; it stops by itself where it must write
                write_atomically(path / HEARTBEAT, json.dumps(dict(host=_host(), pid=os.getpid(), time=time.time())))

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
def alone(path: Path):
    """Wait until no other process of this host is inside: for files that several write."""
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
    return _elsewhere(path)

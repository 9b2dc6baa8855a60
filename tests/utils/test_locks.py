"""Directory locks: exclusive on one host, detected by heartbeats on other hosts."""

import json
import os
import types

from aigc_jax.utils import documents, locks


def test_lock_is_exclusive_and_writes_a_heartbeat(tmp_path):
    with locks.try_lock(tmp_path) as mine:
        assert (
            mine
            and locks.is_locked(tmp_path)
            and json.loads((tmp_path / "heartbeat.json").read_text())["pid"] == os.getpid()
        )
        with locks.try_lock(tmp_path) as again:
            assert not again
    assert not locks.is_locked(tmp_path) and not (tmp_path / "heartbeat.json").exists()


def test_remote_lock_is_held_while_its_heartbeat_changes(tmp_path, monkeypatch):
    """Clocks of different hosts need not agree: a counter replaces the time here, and
    the other host writes heartbeats or does not.
    """
    now, beats, alive = [0.0], [0], [True]

    def sleep(seconds):
        now[0] += seconds
        if alive[0] and now[0] % 10 == 0:
            beat()

    def beat():
        beats[0] += 1
        documents.write(tmp_path / "heartbeat.json", dict(host="another", pid=1, beats=beats[0]))

    monkeypatch.setattr(
        locks,
        "time",
        types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep, time=lambda: -1e9),
    )
    monkeypatch.setattr(locks, "_watched", {})
    (tmp_path / ".lock").touch()
    beat()
    assert locks.is_locked(tmp_path)
    with locks.try_lock(tmp_path) as mine:
        assert not mine and now[0] == 10  # the next heartbeat is detected
    sleep(100)
    assert locks.is_locked(tmp_path)
    sleep(115)  # 225 is no multiple of 10: no heartbeat
    assert locks.is_locked(tmp_path)
    alive[0] = False
    sleep(120)
    assert not locks.is_locked(tmp_path)  # 120 seconds without a change
    locks._watched.clear()  # as a new process without observations
    begun = now[0]
    with locks.try_lock(tmp_path) as mine:
        assert mine and now[0] - begun == 120

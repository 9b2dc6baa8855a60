"""Locks of directories: one process of a host, other hosts by their heartbeats."""

import json
import os
import types

from aigc_jax.utils import documents, locks


def test_one_host_holds_a_directory_once_and_another_is_seen_by_its_heartbeat(tmp_path):
    with locks.hold(tmp_path) as mine:
        assert (
            mine
            and locks.is_held(tmp_path)
            and json.loads((tmp_path / "heartbeat.json").read_text())["pid"] == os.getpid()
        )
        with locks.hold(tmp_path) as again:
            assert not again
    assert not locks.is_held(tmp_path) and not (tmp_path / "heartbeat.json").exists()


def test_another_host_is_alive_while_its_heartbeat_changes(tmp_path, monkeypatch):
    """Whatever the clocks of the hosts say: time is a counter here, and the other host
    beats or does not.
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
    assert locks.is_held(tmp_path)
    with locks.hold(tmp_path) as mine:
        assert not mine and now[0] == 10  # noticed at its next beat
    sleep(100)
    assert locks.is_held(tmp_path)
    sleep(115)  # no beat: 225 is no tenth second
    assert locks.is_held(tmp_path)
    alive[0] = False
    sleep(120)
    assert not locks.is_held(tmp_path)  # watched for 120 seconds without a change
    locks._watched.clear()  # as a process of its own, which saw nothing yet
    begun = now[0]
    with locks.hold(tmp_path) as mine:
        assert mine and now[0] - begun == 120

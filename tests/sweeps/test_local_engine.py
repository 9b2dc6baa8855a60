"""Processes of this machine that are told to stop while they start."""

import os
import signal
import subprocess

import pytest

from aigc_jax.sweeps.engines import local
from aigc_jax.sweeps.engines.base import Job, delay_signals

PATIENT = "import time\ntime.sleep(60)"


def test_interrupt_during_a_job_start_stops_that_job(tmp_path, monkeypatch):
    popen, started = subprocess.Popen, []

    def interrupted(*words, **more):
        started.append(popen(*words, **more))
        os.kill(os.getpid(), signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(local.subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        local.Local(slots=1).run([Job("a", ["-c", PATIENT], tmp_path / "a.txt")])
    (process,) = started
    try:
        assert process.returncode == -signal.SIGTERM
    finally:
        process.kill()


def test_signals_are_handled_once_by_the_previous_handlers():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with delay_signals():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert seen == []
        assert seen == [signal.SIGUSR1]
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1] * 2
    finally:
        signal.signal(signal.SIGUSR1, before)

"""The order of the loop's calls, evaluations and compilations at the start."""

import json
import os
import signal
import time
from types import SimpleNamespace

import jax
import pytest
from runs import compile_programs, run_state, train
from tiny_configs import tiny

from aigc_jax.training import loop as loops
from aigc_jax.training.loop import Loop
from aigc_jax.training.programs import Programs
from aigc_jax.training.progress import Progress
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError

BEST = dict(best_metric="valid/frechet_pixels")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    assert train(tiny(**BEST), path)[0]["status"] == "done"
    return path


def record_calls(monkeypatch) -> list[str]:
    """The names of the calls of the programs and of the evaluation, in order."""
    calls: list[str] = []

    def record(owner, name):
        function = getattr(owner, name)
        wrapped = lambda *words: (calls.append(name), function(*words))[1]
        monkeypatch.setattr(owner, name, wrapped)

    for owner, name in (
        (Programs, "train"),
        (Programs, "start_compiling"),
        (Loop, "evaluate_untrained"),
        (Loop, "record_evaluation"),
    ):
        record(owner, name)
    return calls


def test_training_starts_before_other_programs_are_compiled(finished, tmp_path, monkeypatch):
    calls = record_calls(monkeypatch)
    train(tiny(**BEST), tmp_path)
    assert calls[:4] == ["train", "start_compiling", "evaluate_untrained", "record_evaluation"]
    assert calls[4] == "train" and run_state(tmp_path) == run_state(finished)
    rows = RunDir(tmp_path).read_rows()
    assert (rows[0]["step"], rows[0]["split"]) == (0, "valid")


def test_large_states_are_evaluated_before_the_first_call(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "MAX_COPIED_BYTES", 0)
    calls = record_calls(monkeypatch)
    train(tiny(**BEST), tmp_path)
    assert calls[:4] == ["start_compiling", "evaluate_untrained", "record_evaluation", "train"]
    assert run_state(tmp_path) == run_state(finished)


@pytest.mark.parametrize("moment", ["start_compiling_training", "start_compiling"])
def test_signal_before_or_in_the_first_call_saves_and_resumes(
    finished, tmp_path, monkeypatch, moment
):
    with monkeypatch.context() as patch:
        patch.setattr(Programs, moment, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        status = train(tiny(**BEST), tmp_path)[0]
    assert status["status"] == "preempted" and status["step"] == (moment == "start_compiling")
    assert [row["step"] for row in RunDir(tmp_path).read_rows()] == [0]
    assert train(tiny(**BEST), tmp_path)[0]["status"] == "done"
    assert run_state(tmp_path) == run_state(finished)


def test_crash_of_the_first_call_is_recorded(tmp_path, monkeypatch):
    def crash(*words):
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(Programs, "train", crash)
    with pytest.raises(RuntimeError, match="the device is lost"):
        train(tiny(**BEST), tmp_path)
    status = RunDir(tmp_path).read_status()
    assert (status["status"], status["step"]) == ("failed: crashed", 0)
    assert "the device is lost" in status["reason"] and (tmp_path / "config.json").exists()


def test_unknown_best_metric_leaves_no_files(tmp_path):
    with pytest.raises(UserError, match="is not a row metric; available: valid/"):
        train(tiny(best_metric="valid/frechet"), tmp_path)
    assert not (tmp_path / "config.json").exists() and not (tmp_path / "rows.jsonl").exists()


def test_calls_are_timed_from_before_the_evaluation(tmp_path, monkeypatch):
    """The first call would seem to take no time after an evaluation that is not
    included, and the next would have as many steps as possible.
    """
    clock = iter(range(10**6))
    monkeypatch.setattr("aigc_jax.training.progress.time.perf_counter", lambda: next(clock))
    steps, start = [], Loop.start_steps
    monkeypatch.setattr(Loop, "start_steps", lambda loop, n: (steps.append(n), start(loop, n))[1])
    train(tiny(), tmp_path)
    assert steps[:3] == [1, 1, 1]  # at a second between readings of the clock


def test_time_without_data_is_counted_while_no_step_runs(monkeypatch):
    programs = compile_programs(tiny(), 1)
    states = programs.init([tiny()])
    read = programs.feed.train_arrays

    def read_slowly(*words):
        time.sleep(0.1)
        return read(*words)

    monkeypatch.setattr(programs.feed, "train_arrays", read_slowly)
    states, metrics = programs.train(states, 0, 1)  # no step could run before
    before = programs.data_wait_seconds
    jax.block_until_ready(metrics)
    states, _ = programs.train(states, 1, 1)
    assert before == 0.0 and 0.1 <= programs.data_wait_seconds < 1.0
    programs._newest_metrics = {"loss": SimpleNamespace(is_ready=lambda: False)}
    counted = programs.data_wait_seconds
    programs.train(states, 2, 1)  # a step runs
    assert programs.data_wait_seconds == counted


def test_progress_line_has_the_share_of_waiting_from_a_percent_on():
    progress = Progress(0, 10)
    progress.start_clocks()
    progress.seconds_per_step, progress.step = 1.0, 5
    assert "waiting" not in progress.format_line({})
    progress.start_time -= 100.0
    progress.data_wait_seconds = 50.0
    assert "50% waiting for data" in progress.format_line({})


def test_timings_have_the_fraction_of_waiting(finished):
    rows = [json.loads(line) for line in (finished / "timings.jsonl").read_text().splitlines()]
    assert rows and all(0 <= row["data_wait"] <= 1 for row in rows)

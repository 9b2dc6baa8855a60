"""Runs and sweeps whose process was killed, and damaged trials, in status, compare,
figure and report.
"""

import json
import subprocess
import sys

import pytest
import report_pages as pages
from helpers import environment
from report_pages import GRID, Page, call, done, refused

from aigc_jax.sweeps import report, status
from aigc_jax.sweeps.launcher_lock import NAME, has_launcher_ended, hold_launcher_lock
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.locks import try_lock

pytestmark = pytest.mark.unit


@pytest.fixture
def sweep(tmp_path):
    """Nine trials, of which one is done and one begun; the last row of the latter is
    past its status.
    """
    made = pages.finish(pages.make_sweep(tmp_path / "s", GRID), {0, 1}, images=False)
    begun = made.trial_dir(made.read_sweep_json()["trials"][1]["id"])
    begun.write_status("running", 10)
    return made


def begun_of(sweep) -> RunDir:
    return sweep.trial_dir(sweep.read_sweep_json()["trials"][1]["id"])


# -- killed


def test_run_that_no_process_trains_is_interrupted(sweep):
    run = begun_of(sweep)
    assert run.describe_status() == "interrupted"
    run.make_and_lock()
    assert RunDir(run.path).describe_status() == "running"
    run.close()
    assert RunDir(run.path).describe_status() == "interrupted"


def test_trial_runs_while_its_group_is_locked(sweep):
    (group,) = sweep.groups()
    assert group.statuses().count("interrupted") == 1
    with try_lock(group.path):
        assert group.statuses().count("running") == 1
    statuses = [trial["status"] for trial in sweep.read_results().trials]
    assert statuses == ["done", "interrupted", *7 * ["waiting"]]


def test_report_and_compare_say_that_a_killed_run_is_interrupted(sweep, tmp_path):
    done("report", begun_of(sweep).path)
    page = Page(begun_of(sweep).path / "report.html")
    assert "1 interrupted" in page.words and "running" not in page.words
    first = sweep.trial_dir(sweep.read_sweep_json()["trials"][0]["id"]).path
    out = done("compare", first, begun_of(sweep).path)
    assert "1 interrupted" in out and "running" not in out


def test_report_names_one_step_of_a_killed_trial(sweep):
    done("report", sweep.path)
    tables = Page(sweep.path / "report.html").tables
    name = begun_of(sweep).path.name
    steps = {
        kind: next(row[tables[kind][0].index("step")] for row in tables[kind] if row[0] == name)
        for kind in ("missing", "trials")
    }
    assert steps == dict(missing="20", trials="20")


def test_launcher_lock_is_seen_by_others(sweep):
    assert not has_launcher_ended(sweep.path), "unknown"
    with hold_launcher_lock(sweep.path), hold_launcher_lock(sweep.path):
        assert not has_launcher_ended(sweep.path)
    assert has_launcher_ended(sweep.path)
    (sweep.path / NAME).write_text("another host")
    assert not has_launcher_ended(sweep.path), "unknown"


def test_status_of_a_killed_launcher_says_stopped_and_watching_ends(sweep):
    """The launcher is a process that is killed while trials wait."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from aigc_jax.sweeps.launcher_lock import hold_launcher_lock\n"
        "with hold_launcher_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(99)"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, str(sweep.path)], stdout=subprocess.PIPE, env=environment()
    )
    try:
        assert launcher.stdout.readline() == b"held\n"
        assert status.STOPPED not in done("status", sweep.path)
    finally:
        launcher.kill()
        launcher.wait()
    assert status.STOPPED in done("status", sweep.path)
    out = done("status", "--watch", sweep.path)
    assert status.STOPPED in out and "1 interrupted" in out and "7 waiting" in out
    (group,) = sweep.groups()
    with try_lock(group.path):  # a job outlives its launcher
        assert status.STOPPED not in done("status", sweep.path)


def test_values_of_groups_are_written_as_a_user_writes_them(tmp_path):
    overrides = [{"model.widths": ((width,),)} for width in (50, 60)]
    out = done("status", pages.make_sweep(tmp_path, overrides).path)
    assert "model.widths=((50,),)" in out and "[" not in out


# -- a refused run leaves nothing


@pytest.mark.parametrize("folder", ["new", "new/deep", "old"])
def test_refused_run_leaves_no_lock_and_no_directory(tmp_path, folder):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes.txt").write_text("mine")
    words = ["train", "--config=vae_digits", f"--workdir={tmp_path / folder}", "--extend=9"]
    refused(words, "holds no run to extend")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        "old",
        "old/notes.txt",
    ]


def test_removed_lock_is_not_held_by_the_next_process(tmp_path):
    """A lock that was opened before its removal is opened again."""
    first, second = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
    first.make_and_lock()
    with pytest.raises(Exception, match="another process is training"):
        second.make_and_lock()
    first.close()
    assert not (tmp_path / "run").exists()
    second.make_and_lock()
    assert (tmp_path / "run" / ".lock").exists()
    second.close()


# -- damaged trials


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run.write_status("done", 20, rows=dict(bytes=10**6, sha256="0" * 64)),
        lambda run: run.write_status("done", 20, rows=dict(bytes=100, sha256="0" * 64)),
        lambda run: (run / "rows.jsonl").write_text("[1, 2]\n"),
    ],
)
def test_damaged_trial_leaves_the_others_intact(tmp_path, damage):
    sweep = pages.finish(pages.make_sweep(tmp_path / "s", GRID), images=False)
    good = sweep.rows()
    run = begun_of(sweep)
    damage(run)
    results = sweep.read_results()
    assert results.rows == [row for row in good if row["trial"] != run.path.name]
    assert results.trials[1]["status"] == "failed: damaged"
    texts = []
    report.write_sweep_results(sweep, report=texts.append)
    assert f"{run.path.name} is left out: " in texts[0] and "is damaged" in texts[0]
    assert "n | test" in texts[0].split("\n")[0] and "2 of 3, 1 damaged" in texts[0]
    done("report", sweep.path)
    page = Page(sweep.path / "report.html")
    (line,) = (row for row in page.tables["missing"] if row[0] == run.path.name)
    assert line[1] == "failed: damaged" and "is damaged" in line[3]
    assert len(page.data["charts"]) == 3
    with pytest.raises(UserError, match="damaged trials are not committed"):
        report.write_committed_results(sweep, results, tmp_path / "committed", None)
    assert not (tmp_path / "committed").exists()


def test_damaged_json_of_a_trial_leaves_the_others_intact(tmp_path):
    sweep = pages.finish(pages.make_sweep(tmp_path / "s", GRID), images=False)
    run = begun_of(sweep)
    for name in ("STATUS.json", "environment.json", "config.json"):
        (run / name).write_text("{")
    done("report", sweep.path)
    assert "8 done" in Page(sweep.path / "report.html").words
    code, out, _ = call("figure", f"--workdir={sweep.path}")
    assert code == 0 and "1 failed: damaged" in out


def test_damaged_run_of_several_is_named_and_left_out(tmp_path):
    sweep = pages.finish(pages.make_sweep(tmp_path / "s", GRID), images=False)
    runs = [sweep.trial_dir(t["id"]) for t in sweep.read_sweep_json()["trials"][:3]]
    (runs[1] / "config.json").write_text(json.dumps(3))
    (runs[2] / "rows.jsonl").write_text("x\n")
    done("report", *(run.path for run in runs), f"--out={tmp_path / 'r.html'}")
    page = Page(tmp_path / "r.html")
    assert page.data["trials"] == [runs[0].path.name]
    for run in runs[1:]:
        assert f"{run.path.name} is left out: " in page.words
    refused(["report", runs[1].path], "is damaged")

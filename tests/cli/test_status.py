"""The command `status`: tables of a sweep from the files of its trials."""

import contextlib
import io
import itertools
import subprocess
import sys

import pytest
from helpers import ROOT, environment
from runs import make_sweep

from aigc_jax.cli.main import main
from aigc_jax.cli.rich_output import draw_by_rich
from aigc_jax.sweeps import status
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.training.config import to_json_dict

HOSTILE = "[red]x[/red] [link=file:///]y[/link] \x1b[2J\x1b]0;title\x07\nTraceback: <b>"


@pytest.fixture
def sweep(tmp_path):
    """Groups of sizes 2 and 3: one trial of the first runs, the others are done,
    failed and stopped; the second waits.
    """
    rates = [1e-3, 2e-3, 3e-3, 4e-3]
    more = [{"latent_dims": (2,), "hp.lr": rate} for rate in rates]
    it = make_sweep(tmp_path / "sweep", [*more, {"latent_dims": (3,)}])
    group = it.groups()[0]
    for run, config in zip(group.dirs, group.configs(), strict=True):
        run.path.mkdir(parents=True)
        run.write_json(
            "config.json",
            dict(
                identity_version=2,
                hash="0" * 12,
                changes={},
                data="",
                spec=dict(kind="image", shape=[8], n_train=1),
                config=to_json_dict(config) | dict(steps=16),
            ),
        )
        run.append_timing(step=4, seconds=1.0, steps_per_s=2.0)
    running, done, failed, stopped = group.dirs
    running.write_status("running", 4)
    done.write_status("done", 16)
    failed.write_status("failed: diverged", 12, metric="loss", reason=HOSTILE)
    stopped.write_status("stopped", 8)
    running.make_and_lock()
    yield it
    running.close()


def test_status_counts_trials_and_estimates_the_rest(sweep):
    first, second = map(status.read_group_status, sweep.groups())
    assert [first.count(word) for word in status.STATUSES] == [0, 1, 0, 0, 1, 1, 1]
    assert [second.count(word) for word in status.STATUSES] == [1, 0, 0, 0, 0, 0, 0]
    assert first.progress == 4 / 16 and first.fraction == (3 + 4 / 16) / 4
    assert first.seconds_left == 12 / 2 and second.seconds_left is None
    assert second.fraction == 0 and first.label == "latent_dims=(2,)"
    view = status.SweepStatus(sweep)
    line, fraction = view.format_line([first, second])
    assert fraction == (3 + 4 / 16) / 5 and line.endswith("; 6 s left")


def test_preempted_group_keeps_its_progress(sweep):
    group = sweep.groups()[0]
    group.dirs[0].write_status("preempted", 4, signal="SIGTERM")
    found = status.read_group_status(group)
    assert found.count("preempted") == 1 and found.progress == 4 / 16
    assert found.seconds_left is None


def test_progress_is_that_of_a_trial_which_continues(sweep):
    """Not of one that successive halving stopped before."""
    group = sweep.groups()[0]
    group.dirs[0].write_status("stopped", 4)
    group.dirs[1].write_status("running", 8)
    group.dirs[1].append_timing(step=12, seconds=2.0, steps_per_s=4.0)
    group.dirs[1].make_and_lock()
    found = status.read_group_status(group)
    group.dirs[1].close()
    assert found.progress == 12 / 16 and found.seconds_left == 1


def test_status_prints_groups_and_failures(sweep, capsys):
    assert main(["status", str(sweep.path)]) == 0
    out = capsys.readouterr().out
    for group in sweep.groups():
        assert group.name in out
    failed = sweep.groups()[0].dirs[2].path.name
    (line,) = (line for line in out.splitlines() if line.startswith(failed))
    assert "failed: diverged" in line and "\\nTraceback: <b>" in line
    assert "65%" in out and "6 s" in out and "waiting" in out
    assert "preempted" not in out, "columns without a trial are left out"
    assert "\x1b" not in out and "\x07" not in out and "\\x1b[2J" in out


def test_watching_a_finished_sweep_returns_zero(tmp_path, capsys):
    Sweep(tmp_path).add_trials([], "test")
    assert main(["status", str(tmp_path), "--watch"]) == 0
    assert "route" in capsys.readouterr().out


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in dict(TERM="xterm", COLUMNS="160", LINES="40").items():
        monkeypatch.setenv(name, value)
    return Terminal()


def finish_while_watching(sweep, monkeypatch, polls=2):
    """Trials finish after some readings of the files."""
    count = itertools.count()

    def finish(seconds):
        if next(count) == polls:
            for group in sweep.groups():
                for run in group.dirs:
                    run.path.mkdir(parents=True, exist_ok=True)
                    if run.describe_status() not in ("failed: diverged", "stopped"):
                        run.write_status("done", 16)

    monkeypatch.setattr(status.time, "sleep", finish)


def test_watched_tables_are_updated_on_a_terminal(sweep, screen, monkeypatch, capsys):
    finish_while_watching(sweep, monkeypatch)
    with contextlib.redirect_stderr(screen), draw_by_rich():
        status.watch_sweep(sweep)
    shown = screen.getvalue()
    assert "progress" in shown and "━" in shown and sweep.groups()[0].name in shown
    assert "[red]x[/red]" in shown and "\x1b[2J" not in shown and "\x1b]0" not in shown
    assert shown.count("\x1b[?25h") == 1, "the cursor is shown again"
    assert "3 done" in capsys.readouterr().out


def test_watched_sweep_in_a_pipe_has_plain_lines(sweep, monkeypatch, capsys):
    finish_while_watching(sweep, monkeypatch)
    status.watch_sweep(sweep)
    out, err = capsys.readouterr()
    assert "1 running" in err and "3 done" in out
    assert "\x1b" not in out + err and len(err.splitlines()) == 1


def test_running_groups_have_bars_below_the_line(sweep, screen):
    with contextlib.redirect_stderr(screen), draw_by_rich():
        view = status.SweepStatus(sweep)
        view.print_if_due()
        shown = screen.getvalue()
        view.print_if_due(is_last=True)
    assert "latent_dims=(2,)  4 trials  step 4/16  2 steps/s  6 s left" in shown
    last = screen.getvalue()[len(shown) :]
    assert "1 running" in last and "steps/s" not in last.rsplit("\x1b[2K", 1)[-1]


def test_table_of_many_groups_is_cut_on_a_terminal(sweep):
    groups = [status.read_group_status(group) for group in sweep.groups()] * 20
    assert len(status.make_group_table(groups).rows) == 40
    assert len(status.make_group_table(groups, 12).rows) == 12
    lines = status.describe_failures(groups, 12)
    assert len(lines) == 12 and lines[-1] == "and 9 more failed trials"


def test_status_of_something_else_is_a_one_line_error(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert "is no sweep" in capsys.readouterr().err


def test_status_imports_no_jax(sweep):
    code = (
        "import sys\nfrom aigc_jax.cli.main import main\n"
        f"main(['status', {str(sweep.path)!r}])\nsys.exit('jax' in sys.modules)"
    )
    words = [sys.executable, "-c", code]
    subprocess.run(words, env=environment(), cwd=ROOT, check=True, capture_output=True)

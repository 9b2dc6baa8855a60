"""Sweeps as real processes that are killed, crash, stop, and meet one another."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import pytest
from helpers import ROOT, environment, start_words
from tiny_configs import SMALL_RUN, VAE

from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import FINAL

OVERRIDES = (
    SMALL_RUN
    | VAE
    | {
        "metrics": (),
        "steps": 400,
        "run.mesh.data": -1,
        "run.eval_every": "40 steps",
        "run.save_every": "40 steps",
        "run.log_every": "20 steps",
        "run.sample_every": "200 steps",
    }
)


def words(path, *more, **changes):
    # the grid sets it
    overrides = [
        f"--config.{k}={v}" for k, v in (OVERRIDES | changes).items() if k != "latent_dims"
    ]
    return [
        "sweep",
        f"--config={ROOT / 'configs/vae_digits.py'}",
        f"--workdir={path}",
        "--grid",
        "latent_dims=(3,),(4,)",
        "--seeds=2",
        "--route=vmap",
        *more,
        *overrides,
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Processes with a compilation cache of the tests, which the jobs share."""
    return environment() | dict(XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache")))


def finish(path, home, *more, **changes):
    return subprocess.run(
        start_words(*words(path, *more, **changes)),
        env=home,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, home):
    """The uninterrupted sweep: two programs of two seeds."""
    path = tmp_path_factory.mktemp("whole") / "sweep"
    ended = finish(path, home)
    assert (
        ended.returncode == 0
        and "| latent_dims | n | test kl" in ended.stdout
        and "4 done" in ended.stderr
    ), ended.stderr
    return path


def job_of(path):
    """The process that trains a group at this moment, or None."""
    for beat in path.glob("groups/*/heartbeat.json"):
        try:
            pid = json.loads(beat.read_text())["pid"]
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError):
            continue
    return None


@pytest.mark.slow
def test_sweep_killed_five_times_has_the_same_results(uninterrupted, home, tmp_path):
    """Now the launcher, now the job, now both."""
    path, moments, progress = tmp_path / "sweep", random.Random(3), []
    for victims in ("both", "launcher", "both", "job", "both"):
        launcher = subprocess.Popen(
            start_words(*words(path)),
            env=home,
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while (job := job_of(path)) is None and launcher.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.3, 2.5))
        if victims != "job":
            launcher.kill()
        if victims != "launcher" and job is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(job, signal.SIGKILL)
        if victims == "job":
            launcher.kill()
        launcher.wait()
        progress.append(
            sum(status in FINAL for g in Sweep(path).groups() for status in g.statuses())
        )
    ended = finish(path, home)
    assert ended.returncode == 0, ended.stderr
    assert (path / "rows.csv").read_bytes() == (
        uninterrupted / "rows.csv"
    ).read_bytes() and progress[0] < 4


@pytest.mark.slow
def test_two_processes_share_a_sweep(uninterrupted, home, tmp_path):
    path = tmp_path / "sweep"
    pipes = dict(stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    both = [
        subprocess.Popen(start_words(*words(path)), env=home, cwd=ROOT, **pipes) for _ in range(2)
    ]
    said = [p.communicate() for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert (path / "rows.csv").read_bytes() == (uninterrupted / "rows.csv").read_bytes()
    for g in Sweep(path).groups():  # each group was trained from its beginning to its end once
        assert (g.path / "log.txt").read_text().count("step 400/400") == 1


@pytest.mark.slow
def test_refused_group_does_not_fail_other_groups(home, tmp_path):
    path = tmp_path / "sweep"
    more = ["--grid", "config.best_metric=valid/neg_elbo,valid/nothing", "--slots=2"]
    ended = finish(path, home, *more, steps=20)
    assert (
        ended.returncode == 1
        and "4 unfinished trials" in ended.stderr.splitlines()[-1]
        and "Traceback" not in ended.stderr
    )
    assert (
        ended.stderr.count("cannot be trained: config.best_metric = 'valid/nothing'") == 2
        and "retrying" not in ended.stderr  # with half the chunk it would be refused too
    )
    statuses = [s for g in Sweep(path).groups() for s in g.statuses()]
    assert sorted(statuses) == ["done"] * 4 + ["failed: crashed"] * 4
    crashed = next(
        d
        for g in Sweep(path).groups()
        for d, s in zip(g.dirs, g.statuses(), strict=True)
        if s == "failed: crashed"
    )
    assert "valid/nothing" in crashed.read_json("STATUS.json")["reason"]


@pytest.mark.slow
def test_sigterm_saves_a_sweep_that_resumes(uninterrupted, home, tmp_path):
    path = tmp_path / "sweep"
    launcher = subprocess.Popen(
        start_words(*words(path)),
        env=home,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not list(path.glob("groups/*/checkpoints/*")):
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.send_signal(signal.SIGTERM)
    err = launcher.communicate()[1]
    assert (
        launcher.returncode == 130
        and "the same command resumes the sweep" in err.splitlines()[-1]
        and "Traceback" not in err
    )
    assert job_of(path) is None and "preempted" in Sweep(path).groups()[0].statuses()
    assert (
        finish(path, home).returncode == 0
        and (path / "rows.csv").read_bytes() == (uninterrupted / "rows.csv").read_bytes()
    )


FULL = """
set -e
dir=$1; size=$2; shift 2
mount -t tmpfs -o size=$size tmpfs $dir
set +e
"$@" 2>$dir.err; echo $? >$dir.code
mount -o remount,size=500m $dir
"$@" 2>$dir.err2; echo $? >$dir.code2
cp $dir/sweep/rows.csv $dir.rows
"""


@pytest.mark.slow  # that of a run in test_processes is not
def test_full_disk_is_a_one_line_error_and_loses_no_data(uninterrupted, home, tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare -rm, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    # Half of the trials' files: the report contains a plotting library, and is larger.
    files = [p for p in uninterrupted.rglob("*") if p.is_file() and p.suffix != ".html"]
    size = sum(p.stat().st_size for p in files) // 2
    command = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        FULL,
        "sh",
        str(disk),
        str(size),
        *start_words(*words(disk / "sweep")),
    ]
    done = subprocess.run(command, env=home, cwd=ROOT, capture_output=True, text=True, check=False)
    if "mount" in done.stderr:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    read = lambda end: (tmp_path / f"disk{end}").read_text()
    assert (
        read(".code") == "1\n" and "is full" in read(".err") and "Traceback" not in read(".err")
    ), read(".err")
    assert (
        read(".code2") == "0\n"
        and (tmp_path / "disk.rows").read_bytes() == (uninterrupted / "rows.csv").read_bytes()
    ), read(".err2")

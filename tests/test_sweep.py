"""Sweeps: grids, trials, groups as one program, halving, real processes that are killed, crash and meet one another."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import types

import jax
import numpy as np
import pytest
from conftest import ROOT, environment, start_words
from tiny_configs import SMALL_RUN, VAE, tiny

import aigc_jax
from aigc_jax import compare, grid, group, locks, stored, sweep_results, sweeping, tables
from aigc_jax import config as configs
from aigc_jax import train as training
from aigc_jax.errors import UserError
from aigc_jax.results import RunDir
from aigc_jax.sweep import FINAL, Sweep, groups_of, slug, trials_of

SHORT = {"steps": 16, "metrics": (), "metric_samples": 8}


def swept(path, overrides, name="vae", extra=None, **more):
    """A sweep directory with its trials and groups, before any is trained."""
    it = Sweep(path)
    it.add(trials_of(configs.override(tiny(name), SHORT | more), overrides), "test", extra)
    return it


def carried_out(it, route="vmap"):
    assert [group.run(g.path, route, report=lambda line: None) for g in it.groups()] == [0] * len(it.groups())
    return it.rows()


# -- grids


def test_products_pairs_chains_and_seeds():
    rates, betas = grid.values("hp.lr", 1e-4, 1e-3), grid.values("hp.beta", 1.0, 4.0)
    assert grid.product(rates, grid.seeds(2)) == [{"hp.lr": lr, "seed": s} for lr in (1e-4, 1e-3) for s in (0, 1)]
    assert grid.zipped(rates, betas) == [{"hp.lr": 1e-4, "hp.beta": 1.0}, {"hp.lr": 1e-3, "hp.beta": 4.0}]
    assert grid.chain(rates, betas) == rates + betas and grid.product() == [{}]
    with pytest.raises(UserError, match="one length, not 2, 3"):
        grid.zipped(rates, grid.seeds(3))


def test_random_draws_lie_in_their_ranges_and_do_not_depend_on_how_many_there_are():
    draws = {"hp.lr": grid.loguniform(1e-5, 1e-2), "hp.beta": grid.uniform(0.5, 4), "optimizer": grid.choice("adam", "sgd")}
    many = grid.random(400, draws, seed=1)
    assert grid.random(7, draws, seed=1) == many[:7] != grid.random(7, draws, seed=2)
    logs = np.log10([d["hp.lr"] for d in many])
    assert logs.min() >= -5 and logs.max() <= -2 and abs(logs.mean() + 3.5) < 0.15
    assert all(0.5 <= d["hp.beta"] <= 4 for d in many) and {d["optimizer"] for d in many} == {"adam", "sgd"}


@pytest.mark.parametrize("text", ["hp.lr", "hp.lr=", "=1", "hp.lr=1,,2"])
def test_a_grid_that_is_none(text):
    with pytest.raises(UserError, match="--grid=" + text.replace(".", r"\.")):
        grid.parse(text)


# -- trials and groups


@pytest.mark.parametrize("overrides, words", [
    ([{"hp.lrr": 1}], r"config\.hp\.lrr: no such key of .*; did you mean 'hp\.lr'"),
    ([{"seed": 1}, {"seed": 1}], "trials 0 and 1 of the sweep are the same"),
    ([{"steps": 40}, {"seed": 1}, {"steps": "40 steps"}], "trials 0 and 2 of the sweep are the same"),
    ([{"hp.lr": 1}, {"hp.lr": 1.0}], "trials 0 and 1 of the sweep are the same"),
    ([{"steps": 40}, {"steps": "2 epochs"}], r"trials 0 and 1 of the sweep differ in config\.steps alone, 40 and '2\.0 epochs', .* in one unit"),
    ([{"seed": 2**32}], r"config\.seed = 4294967296 must be at most 4,294,967,295"),
    ([{"data.size": 32}], r"config\.data\.size = 32 is read by nothing in config\.data\.name = 'digits'"),
    ([{"seed": 0}, {}], "trials 0 and 1"), ([], "has no trial"), ([3], "trial 0 of the sweep is 3"), ([{"steps": "soon"}], "is no duration"),
])  # fmt: skip
def test_what_is_no_sweep_fails_before_anything_starts(tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        swept(tmp_path, overrides)
    assert not any(tmp_path.iterdir())


def test_trials_that_share_their_static_keys_are_a_group():
    trials = trials_of(tiny("vae"), grid.product(grid.values("z", (3,), (4,)), grid.values("hp.lr", 1e-3, 1e-2), grid.seeds(2)))
    assert [len(members) for members in groups_of(trials)] == [4, 4]
    assert {t.config.z for t in groups_of(trials)[1]} == {(4,)} and len({t.id for t in trials}) == 8
    assert slug({"hp.lr": 1e-3, "seed": 3, "z": (3, 4)}) == "lr=0.001,seed=3,z=_3,_4"
    assert all("/" not in t.id and t.id.isprintable() for t in trials_of(tiny("vae"), [{"data.name": "npz", "data.path": "../a b/é"}]))


def test_a_sweep_that_grows_leaves_its_groups_as_they_were(tmp_path):
    swept(tmp_path, grid.seeds(2))
    before = {g.name: g.members for g in Sweep(tmp_path).groups()}
    it = swept(tmp_path, grid.seeds(4))
    assert len(it.groups()) == 2 and [g.members for g in it.groups() if g.name in before] == list(before.values())
    assert [t["overrides"]["seed"] for t in it.stored()["trials"]] == [0, 1, 2, 3]


def test_one_host_holds_a_directory_once_and_another_is_seen_by_its_heartbeat(tmp_path):
    with locks.hold(tmp_path) as mine:
        assert mine and locks.is_held(tmp_path) and json.loads((tmp_path / "heartbeat.json").read_text())["pid"] == os.getpid()
        with locks.hold(tmp_path) as again:
            assert not again
    assert not locks.is_held(tmp_path) and not (tmp_path / "heartbeat.json").exists()


def test_another_host_is_alive_while_its_heartbeat_changes(tmp_path, monkeypatch):
    """Whatever the clocks of the hosts say: time is a counter here, and the other host beats or does not."""
    now, beats, alive = [0.0], [0], [True]

    def sleep(seconds):
        now[0] += seconds
        if alive[0] and now[0] % 10 == 0:
            beat()

    def beat():
        beats[0] += 1
        stored.write(tmp_path / "heartbeat.json", dict(host="another", pid=1, beats=beats[0]))

    monkeypatch.setattr(locks, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep, time=lambda: -1e9))
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


# -- groups as one program


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished sweep: two rates x two seeds, and one trial whose rate is too large."""
    it = swept(tmp_path_factory.mktemp("sweep") / "s", [*grid.product(grid.values("hp.lr", 1e-3, 1e-2), grid.seeds(2)), {"hp.lr": 1e30}])
    carried_out(it)
    return it


def test_each_trial_is_a_run(done):
    (only,) = done.groups()
    assert only.statuses() == ["done"] * 4 + ["failed: diverged"] and only.finished()
    plan = json.loads((only.path / "plan.json").read_text())
    assert plan["members"] == only.members and (plan["route"], plan["chunk"]) == ("vmap", 0) and plan["bytes"]["program"] > 0
    for run in only.dirs[:4]:
        loaded = aigc_jax.load(run.path)
        assert loaded.sample(4).shape == (4, 8, 8, 1) and loaded.step == 16
        assert loaded.evaluate()["neg_elbo"] == pytest.approx(loaded.rows("test")[-1]["neg_elbo"], rel=1e-5)
        assert training.train([loaded.config], [run.path], extend=20, report=print)[0]["status"] == "done"  # it goes on alone
        assert aigc_jax.load(run.path).step == 20
        shutil.rmtree(run / "checkpoints" / "20")
        run.cut(16, stored.read(run / "checkpoints" / "16" / "meta.json")["rows"][0])


def test_the_table_has_means_errors_and_what_failed(done):
    rows, varied = done.rows(), done.varied()
    assert varied == ["hp.lr"]
    lines = tables.summary(done.results()._replace(metric="test/neg_elbo")).splitlines()
    assert lines[0].startswith("| lr | n | test neg_elbo |") and [line.split("|")[2].strip() for line in lines[2:]] == ["2", "2", "0 of 1"]
    values = [row["neg_elbo"] for row in rows if row["split"] == "test" and row["hp.lr"] == 1e-3]
    assert f"| {np.mean(values):.4g} ({np.std(values, ddof=1) / 2**0.5:.2g}) |" in lines[2]
    pair = [t["id"] for t in done.stored()["trials"][:2]]
    steps, y = tables.mean_curve(tables.curves(rows, pair, "valid", "neg_elbo"), pair)
    assert steps.tolist() == [0, 8, 16] and y.shape == (3, 2)
    with pytest.raises(UserError, match="--metric=test/neg_elb is in no row; .*did you mean 'test/neg_elbo'"):
        tables.parts_of("test/neg_elb", rows, varied)


def test_what_all_trials_share_is_no_metric(tmp_path):
    it = swept(tmp_path, grid.product(grid.values("hp.lr", 1e-3), grid.seeds(2)))
    for g in it.groups():
        for run in g.dirs:
            run.path.mkdir(parents=True)
            run.append(dict(step=1, split="test", loss=0.5))
            run.close()
    assert tables.metrics_in(it.rows(), "test", it.varied()) == ["loss"]


def test_the_same_rows_give_the_same_pictures(done):
    said = []
    sweep_results.write_results(done, report=lambda line, **_: said.append(line))
    names = ("rows.csv", "table.md", "figure.png", "figure.pdf")
    before = [(done.path / name).read_bytes() for name in names]
    sweep_results.write_results(done, report=lambda line, **_: None)
    assert [(done.path / name).read_bytes() for name in names] == before and said[0].encode() == before[1]


def test_runs_are_compared(done, tmp_path):
    text = compare.compare([d.path for d in done.groups()[0].dirs[:4:2]], tmp_path / "c.png")
    assert "hp.lr" in text and "\nseed" not in text and "test neg_elbo" in text and (tmp_path / "c.png").stat().st_size > 5000
    with pytest.raises(UserError, match="two runs or more"):
        compare.compare([done.groups()[0].dirs[0].path], tmp_path / "c.png")


def test_how_it_stands_is_said_in_one_line(done):
    line = sweeping.View(done).line()
    assert line.startswith("4 done, 1 failed: diverged, valid/neg_elbo ")
    best = min(row["neg_elbo"] for row in done.rows() if row["split"] == "valid" and row["neg_elbo"] is not None)
    assert f"{best:.4g} (lr=" in line and sweeping.counted(done.groups()[0]) == (4, 0, 1, "vmap")


def test_a_finished_sweep_is_not_trained_again(done):
    before = {p: p.stat().st_mtime_ns for d in done.groups()[0].dirs for p in d.path.rglob("*")}
    assert sweeping.carry_out(done, ROOT / "launch.py", engine=None)  # an engine that was asked to run anything would fail
    assert {p: p.stat().st_mtime_ns for d in done.groups()[0].dirs for p in d.path.rglob("*")} == before



def test_the_plan_is_made_once_and_kept(tmp_path):
    it = swept(tmp_path, grid.seeds(3))
    (g,) = it.groups()
    carried_out(it, "auto")
    plan = stored.read(g.path / "plan.json")
    assert plan["route"] == "vmap" and set(plan["seconds_a_step"]) == {"vmap"}  # in 16 steps a second route could not pay
    long = configs.override(tiny("vae"), SHORT | {"steps": 10**7})
    tried = group.decide([long] * 3, configs.resolve(long, 1, 1), tiny_data(), 3, "auto")[1]["seconds_a_step"]
    assert set(tried) == {"vmap", "map"}
    changed = plan | dict(route="vmap", chunk=2)
    stored.write(g.path / "plan.json", changed)
    members = list(g.members)
    made = group.planned(g.path, members, None)(tiny_resolved(), tiny_data(), 3)
    assert (made.route, made.chunk) == ("vmap", 2)
    several = configs.override(tiny_resolved(), {"run.mesh.data": -1})  # as many devices as there were, however many there are
    stored.write(g.path / "plan.json", changed | dict(devices=2))
    assert group.planned(g.path, members, None)(several, tiny_data(), 3).mesh.shape["trial"] == 2
    stored.write(g.path / "plan.json", changed)
    halved = group.planned(g.path, members, None, halve=True)(tiny_resolved(), tiny_data(), 3)
    assert halved.chunk == 1 and json.loads((g.path / "plan.json").read_text())["halved"] == [2]
    with pytest.raises(UserError, match="other members"):
        group.planned(g.path, members[:2], None)(tiny_resolved(), tiny_data(), 2)


def tiny_resolved():
    from tiny_configs import resolved

    return resolved(configs.override(tiny("vae"), SHORT))


def tiny_data():
    from tiny_configs import dataset

    return dataset(tiny("vae"))


@pytest.mark.slow
def test_trials_that_do_not_fit_are_fewer_at_once():
    make = lambda **more: group.Programs(tiny_resolved(), tiny_data(), 8, **more)
    whole = group.needs(group.fitting(make, 8, None))
    assert group.fitting(make, 8, None).chunk == 0 and group.fitting(make, 8, 10 * whole).chunk == 0
    assert group.fitting(make, 8, 1).chunk == 1  # nothing fits: one after another


def test_as_many_compilations_as_programs(tmp_path):
    """Training, evaluation, first weights, samples: as many for six trials as for two, and none for a second group of the same kind."""

    def compilations(path, n):
        seen = []
        jax.monitoring.register_event_duration_secs_listener(lambda name, secs, **_: seen.append(name))
        carried_out(swept(path, grid.seeds(n)))
        jax.monitoring.clear_event_listeners()
        return sum("backend_compile" in name for name in seen)

    assert 0 < compilations(tmp_path / "a", 6) <= compilations(tmp_path / "b", 2) + 1


HALVING = dict(halving=dict(metric="valid/neg_elbo", rungs=["4 steps", "10 steps"], factor=2, mode="min"))
RATES = [{"hp.lr": lr} for lr in (1e-4, 1e-3, 3e-2, 1e30, 1e-2, 3e-3)]


def test_halving_stops_the_worst_and_goes_on_with_fewer(tmp_path, monkeypatch):
    it = swept(tmp_path / "whole", RATES, extra=HALVING)
    rows = carried_out(it)
    (g,) = it.groups()
    statuses = dict(zip([t["overrides"]["hp.lr"] for t in it.stored()["trials"]], g.statuses(), strict=True))
    assert sorted(statuses.values()) == ["done"] * 2 + ["failed: diverged"] + ["stopped"] * 3 and statuses[1e30] == "failed: diverged"
    kept = [json.loads((g.path / f"rung_{i}" / "rung.json").read_text()) for i in (0, 1)]
    assert [(k["step"], len(k["kept"])) for k in kept] == [(4, 3), (10, 2)]
    for step, among in ((4, g.members), (10, kept[0]["kept"])):
        at = lambda m, step=step: (r["neg_elbo"] for r in RunDir(it.path / "trials" / m).rows() if (r["step"], r["split"]) == (step, "valid"))
        score = {m: next(at(m), None) for m in among}
        ranked = sorted(among, key=lambda m: (score[m] is None, score[m] or 0, m))
        assert set(ranked[: len(kept[step == 10]["kept"])]) == set(kept[step == 10]["kept"])
    for run, status in zip(g.dirs, g.statuses(), strict=True):
        if status == "stopped":
            assert aigc_jax.load(run.path).step == run.read_json("STATUS.json")["step"] in (4, 10)

    # Interrupted at each save, it ends with the same rows.
    again = swept(tmp_path / "parts", RATES, extra=HALVING)
    save, calls = training.Loop.save, []

    def save_and_fail(loop):
        save(loop)
        loop.checkpoints.wait()
        calls.append(loop.step)
        if calls.count(loop.step) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Loop, "save", save_and_fail)
    for _ in range(10):
        try:
            group.run(again.groups()[0].path, "vmap", report=lambda line: None)
            break
        except KeyboardInterrupt:
            continue
    assert sorted(set(calls)) == [4, 8, 10, 16] and again.rows() == rows


def test_halving_by_a_metric_that_no_row_has(tmp_path):
    it = swept(tmp_path, RATES[:2], extra=dict(halving=HALVING["halving"] | dict(metric="valid/elbo")))
    with pytest.raises(UserError, match="no row of step 4 has the metric 'valid/elbo'; there are valid/kl, valid/neg_elbo"):
        group.run(it.groups()[0].path, "vmap", report=lambda line: None)


def test_a_halving_group_whose_trials_all_diverged_is_finished(tmp_path):
    it = swept(tmp_path, RATES[:2], extra=HALVING)
    (g,) = it.groups()
    for run in g.dirs:
        run.path.mkdir(parents=True)
        run.status("failed: diverged", 2, reason="loss is not finite at step 2")
    assert group.run(g.path, report=lambda line: None) == 0 and not (g.path / "rung_0").exists()


# -- real processes

OVERRIDES = SMALL_RUN | VAE | {"metrics": (), "steps": 400, "run.mesh.data": -1, "run.eval_every": "40 steps", "run.save_every": "40 steps",
                               "run.log_every": "20 steps", "run.sample_every": "200 steps"}  # fmt: skip


def words(path, *more, **changes):
    overrides = [f"--config.{k}={v}" for k, v in (OVERRIDES | changes).items() if k != "z"]  # the grid sets it
    return ["sweep", f"--config={ROOT / 'configs/vae_digits.py'}", f"--workdir={path}", "--grid", "z=(3,),(4,)", "--seeds=2", "--route=vmap",
            *more, *overrides]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Processes with a compilation cache of the tests, which the jobs share."""
    return environment() | dict(XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache")))


def finish(path, home, *more, **changes):
    return subprocess.run(start_words(*words(path, *more, **changes)), env=home, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, home):
    """The uninterrupted sweep: two programs of two seeds."""
    path = tmp_path_factory.mktemp("whole") / "sweep"
    ended = finish(path, home)
    assert ended.returncode == 0 and "| z | n | test kl" in ended.stdout and "4 done" in ended.stderr, ended.stderr
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
def test_killed_five_times_a_sweep_ends_as_if_it_had_never_been(whole, home, tmp_path):
    """Now the launcher, now the job, now both."""
    path, moments, progress = tmp_path / "sweep", random.Random(3), []
    for victims in ("both", "launcher", "both", "job", "both"):
        launcher = subprocess.Popen(start_words(*words(path)), env=home, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
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
        progress.append(sum(status in FINAL for g in Sweep(path).groups() for status in g.statuses()))
    ended = finish(path, home)
    assert ended.returncode == 0, ended.stderr
    assert (path / "rows.csv").read_bytes() == (whole / "rows.csv").read_bytes() and progress[0] < 4


@pytest.mark.slow
def test_two_processes_share_a_sweep(whole, home, tmp_path):
    path = tmp_path / "sweep"
    pipes = dict(stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    both = [subprocess.Popen(start_words(*words(path)), env=home, cwd=ROOT, **pipes) for _ in range(2)]
    said = [p.communicate() for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert (path / "rows.csv").read_bytes() == (whole / "rows.csv").read_bytes()
    for g in Sweep(path).groups():  # each group was trained from its beginning to its end once
        assert (g.path / "log.txt").read_text().count("step 400/400") == 1


def test_a_group_that_crashes_is_its_own_failure(home, tmp_path):
    path = tmp_path / "sweep"
    more = ["--grid", "config.best=valid/neg_elbo,valid/nothing", "--slots=2"]
    ended = finish(path, home, *more, steps=20)
    assert ended.returncode == 1 and "4 trials of" in ended.stderr.splitlines()[-1] and "Traceback" not in ended.stderr
    assert ended.stderr.count("once more with half the chunk") == 2 and ended.stderr.count("crashed again: config.best = 'valid/nothing'") == 2
    statuses = [s for g in Sweep(path).groups() for s in g.statuses()]
    assert sorted(statuses) == ["done"] * 4 + ["failed: crashed"] * 4
    crashed = next(d for g in Sweep(path).groups() for d, s in zip(g.dirs, g.statuses(), strict=True) if s == "failed: crashed")
    assert "valid/nothing" in crashed.read_json("STATUS.json")["reason"]


@pytest.mark.slow
def test_told_to_stop_a_sweep_saves_and_goes_on(whole, home, tmp_path):
    path = tmp_path / "sweep"
    launcher = subprocess.Popen(start_words(*words(path)), env=home, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not list(path.glob("groups/*/checkpoints/*")):
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.send_signal(signal.SIGTERM)
    err = launcher.communicate()[1]
    assert launcher.returncode == 130 and "the same command goes on" in err.splitlines()[-1] and "Traceback" not in err
    assert job_of(path) is None and "preempted" in Sweep(path).groups()[0].statuses()
    assert finish(path, home).returncode == 0 and (path / "rows.csv").read_bytes() == (whole / "rows.csv").read_bytes()


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
def test_a_full_disk_is_one_sentence_and_loses_nothing(whole, home, tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare -rm, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file()) // 2
    command = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(disk), str(size), *start_words(*words(disk / "sweep"))]
    done = subprocess.run(command, env=home, cwd=ROOT, capture_output=True, text=True, check=False)
    if "mount" in done.stderr:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    read = lambda end: (tmp_path / f"disk{end}").read_text()
    assert read(".code") == "1\n" and "is full" in read(".err") and "Traceback" not in read(".err"), read(".err")
    assert read(".code2") == "0\n" and (tmp_path / "disk.rows").read_bytes() == (whole / "rows.csv").read_bytes(), read(".err2")


@pytest.mark.parametrize("more, sentence", [
    (["--experiment=experiments/vae_variants.py"], "has no CONFIG"), (["--experiment=experiments/nothing.py"], "no such file"),
    (["--config=configs/vae_digits.py", "--engine=slrum"], "--engine = 'slrum' is none of local"),
    (["--config=configs/vae_digits.py", "--grid", "hp.lrr=1"], "config.hp.lrr: no such key"), ([], "needs --experiment=FILE, or --config=FILE"),
    (["--config=configs/vae_digits.py", "--route=vmpa"], "did you mean 'vmap'"),
])  # fmt: skip
def test_one_sentence_for_what_is_wrong(capsys, tmp_path, monkeypatch, more, sentence):
    import launch

    monkeypatch.chdir(ROOT)
    assert launch.main(["sweep", f"--workdir={tmp_path / 's'}", *more]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and sentence in err and len(err.splitlines()) == 1 and not (tmp_path / "s").exists()

"""Sweeps in this process: groups as one program, their plan, tables, halving."""

import json
import shutil

import jax
import numpy as np
import pytest
from helpers import ROOT
from option_runs import one_program
from runs import SHORT, make_sweep, shared_programs, train
from tiny_configs import tiny

import aigc_jax
from aigc_jax.sweeps import compare, curves, grid, group, report, route, tables
from aigc_jax.sweeps.engines.base import EXIT_REFUSED, ExitStatus
from aigc_jax.sweeps.launch import run_unfinished_groups
from aigc_jax.sweeps.route import (
    build_largest_fitting,
    build_planned_programs,
    choose_route,
    training_program_bytes,
)
from aigc_jax.sweeps.status import SweepStatus, read_route
from aigc_jax.training import config as configs
from aigc_jax.training.loop import Loop
from aigc_jax.training.programs import Programs
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError


def carried_out(it, how="vmap", report=lambda line: None):
    assert [group.train_group(g.path, how, report=report) for g in it.groups()] == [0] * len(
        it.groups()
    )
    return it.rows()


@pytest.fixture(scope="module")
def compiled_once():
    """Patches a `pytest.MonkeyPatch` so that groups which differ in seeds and hp only
    share their programs.
    """
    return lambda patch: patch.setattr(route, "Programs", shared_programs)


@pytest.fixture(scope="module")
def done(tmp_path_factory, compiled_once):
    """A finished sweep: two rates x two seeds, and one trial that diverges."""
    it = make_sweep(
        tmp_path_factory.mktemp("sweep") / "s",
        [*grid.product(grid.values("hp.lr", 1e-3, 1e-2), grid.seeds(2)), {"hp.lr": 1e30}],
    )
    with pytest.MonkeyPatch.context() as patch:
        compiled_once(patch)
        carried_out(it)
    return it


def test_each_trial_is_a_run(done):
    (only,) = done.groups()
    assert only.statuses() == ["done"] * 4 + ["failed: diverged"] and only.is_finished()
    plan = json.loads((only.path / "plan.json").read_text())
    assert (
        plan["members"] == only.members
        and (plan["route"], plan["chunk"]) == ("vmap", 0)
        and plan["bytes"]["program"] > 0
    )
    with one_program():
        for run in only.dirs[:4]:
            loaded = aigc_jax.load(run.path)
            assert loaded.sample(4).shape == (4, 8, 8, 1) and loaded.step == 16
            assert loaded.evaluate()["neg_elbo"] == pytest.approx(
                loaded.rows("test")[-1]["neg_elbo"], rel=1e-5
            )
            # it goes on alone
            assert train(loaded.config, run.path, extend_to=20)[0]["status"] == "done"
            assert aigc_jax.load(run.path).step == 20
            shutil.rmtree(run / "checkpoints" / "20")
            run.truncate_after(
                16, documents.read(run / "checkpoints" / "16" / "meta.json")["rows"][0]
            )


def test_table_has_means_errors_and_failures(done):
    rows, varied = done.rows(), done.varied_keys()
    assert varied == ["hp.lr"]
    lines = tables.format_summary_table(
        done.read_results()._replace(metric="test/neg_elbo")
    ).splitlines()
    assert lines[0].startswith("| lr | n | test neg_elbo |") and [
        line.split("|")[2].strip() for line in lines[2:] if line.startswith("|")
    ] == ["2", "2", "0 of 1, 1 diverged"]
    failed = done.groups()[0].dirs[4]
    metric, step = (failed.read_status()[key] for key in ("metric", "step"))
    note = f"Diverged: {failed.path.name} ({metric} at step {step})."
    assert note in tables.describe_failed_trials(done.read_results())
    values = [row["neg_elbo"] for row in rows if row["split"] == "test" and row["hp.lr"] == 1e-3]
    cell = f"{np.mean(values):.4g} ({np.std(values, ddof=1) / 2**0.5:.2g})"
    assert f"| {cell} |" in lines[2].replace("*", "")
    pair = [t["id"] for t in done.read_sweep_json()["trials"][:2]]
    steps, y = curves.align_curves(curves.extract_curves(rows, pair, "valid", "neg_elbo"), pair)
    assert steps.tolist() == [0, 8, 16] and y.shape == (3, 2)
    with pytest.raises(
        UserError, match="^metric=test/neg_elb is not in any row; .*did you mean 'test/neg_elbo'"
    ):
        tables.parse_metric("test/neg_elb", rows, varied)


def test_values_shared_by_all_trials_are_not_metrics(tmp_path):
    it = make_sweep(tmp_path, grid.product(grid.values("hp.lr", 1e-3), grid.seeds(2)))
    for g in it.groups():
        for run in g.dirs:
            run.path.mkdir(parents=True)
            run.append_row(dict(step=1, split="test", loss=0.5))
            run.close()
    assert tables.list_metric_names(it.rows(), "test", it.varied_keys()) == ["loss"]


def test_equal_rows_give_identical_figures(done):
    said = []
    report.write_sweep_results(done, report=lambda line, **_: said.append(line))
    names = ("rows.csv", "table.md", "figure.png", "figure.pdf")
    before = [(done.path / name).read_bytes() for name in names]
    report.write_sweep_results(done, report=lambda line, **_: None)
    assert [(done.path / name).read_bytes() for name in names] == before and said[
        0
    ].encode() == before[1]


def test_runs_are_compared(done, tmp_path):
    blocks = compare.compare_runs([d.path for d in done.groups()[0].dirs[:4:2]], tmp_path / "c.png")
    text = "\n".join(map(str, blocks))
    assert (
        "hp.lr" in text
        and "\nseed" not in text
        and "test neg_elbo" in text
        and (tmp_path / "c.png").stat().st_size > 5000
    )
    with pytest.raises(UserError, match="two runs or more"):
        compare.compare_runs([done.groups()[0].dirs[0].path], tmp_path / "c.png")


def test_status_is_one_line(done):
    view = SweepStatus(done)
    line, fraction = view.format_line(view.read_groups())
    assert fraction == 1
    assert line.startswith("4 done, 1 failed: diverged, valid/neg_elbo ")
    best = min(
        row["neg_elbo"]
        for row in done.rows()
        if row["split"] == "valid" and row["neg_elbo"] is not None
    )
    assert f"{best:.4g} (lr=" in line and read_route(done.groups()[0]) == "vmap"


def test_finished_sweep_is_not_retrained(done):
    before = {p: p.stat().st_mtime_ns for d in done.groups()[0].dirs for p in d.path.rglob("*")}
    # an engine that was asked to run anything would fail
    assert run_unfinished_groups(done, engine=None)
    assert {
        p: p.stat().st_mtime_ns for d in done.groups()[0].dirs for p in d.path.rglob("*")
    } == before


def test_crashed_group_is_retried_once_and_refused_group_is_not(tmp_path):
    it = make_sweep(tmp_path, [{"latent_dims": (size,)} for size in (2, 3, 4)])
    (crashes, refused, sound), asked, lines = [g.name for g in it.groups()], [], []

    class Scripted:
        def run(self, jobs, look):
            asked.extend((job.name, "--halve" in job.words) for job in jobs)
            return {job.name: self.end(job.name) for job in jobs}

        def end(self, name):
            if name == sound:
                next(g for g in it.groups() if g.name == sound).dirs[0].path.mkdir(parents=True)
                next(g for g in it.groups() if g.name == sound).dirs[0].write_status("done", 16)
                return ExitStatus(0, "")
            return (
                ExitStatus(EXIT_REFUSED, "no data") if name == refused else ExitStatus(1, "Aborted")
            )

    assert run_unfinished_groups(it, Scripted(), report=lines.append) is False
    assert asked == [(crashes, False), (refused, False), (sound, False), (crashes, True)]
    assert lines == [
        f"group {refused} cannot be trained: no data",
        f"group {crashes} crashed: Aborted; retrying with half the chunk size",
        f"group {crashes} crashed again: Aborted; its log: {it.path / 'groups' / crashes}/log.txt",
    ]
    assert {g.name: g.statuses() for g in it.groups()} == {
        crashes: ["failed: crashed"],
        refused: ["failed: crashed"],
        sound: ["done"],
    }
    reasons = [g.dirs[0].read_status()["reason"] for g in it.groups() if g.name != sound]
    assert reasons == ["Aborted", "no data"]


def test_plan_is_made_once_and_stored(tmp_path, monkeypatch, compiled_once):
    compiled_once(monkeypatch)
    it = make_sweep(tmp_path, grid.seeds(3))
    (g,) = it.groups()
    # Nothing is trained: the plan is made with the programs.
    monkeypatch.setattr(group, "train", lambda *_: [])
    monkeypatch.setattr(route, "PROBE_SECONDS", 0.01)
    carried_out(it, "auto")
    plan = documents.read(g.path / "plan.json")
    # in 16 steps a second route could not pay
    assert plan["route"] == "vmap" and set(plan["seconds_a_step"]) == {"vmap"}
    long = configs.resolve_durations(configs.override(tiny("vae"), SHORT | {"steps": 10**7}), 1, 1)
    tried = choose_route([long] * 3, tiny_data(), "auto")[1]["seconds_a_step"]
    assert set(tried) == {"vmap", "map"}
    changed = plan | dict(route="vmap", chunk=2)
    documents.write(g.path / "plan.json", changed)
    members, three = list(g.members), [tiny_resolved()] * 3
    made = build_planned_programs(g.path, members, three, tiny_data())
    assert (made.route, made.chunk) == ("vmap", 2)
    # as many devices as there were, however many there are
    several = configs.override(tiny_resolved(), {"run.mesh.data": -1})
    documents.write(g.path / "plan.json", changed | dict(devices=2))
    divided = build_planned_programs(g.path, members, [several] * 3, tiny_data())
    assert divided.mesh.shape["trial"] == 2
    documents.write(g.path / "plan.json", changed)
    halved = build_planned_programs(g.path, members, three, tiny_data(), halve_chunk=True)
    assert halved.chunk == 1 and json.loads((g.path / "plan.json").read_text())["halved"] == [2]
    with pytest.raises(UserError, match="other members"):
        build_planned_programs(g.path, members[:2], three[:2], tiny_data())


def tiny_resolved():
    from tiny_configs import resolved

    return resolved(configs.override(tiny("vae"), SHORT))


def tiny_data():
    from tiny_configs import dataset

    return dataset(tiny("vae"))


@pytest.mark.slow
def test_trials_that_exceed_memory_run_in_smaller_chunks():
    build = lambda **more: Programs(tiny_resolved(), tiny_data(), 8, **more)
    needed = training_program_bytes(build_largest_fitting(build, 8, None))
    for available, chunk in ((None, 0), (10 * needed, 0), (1, 1)):  # 1: one after another
        assert build_largest_fitting(build, 8, available).chunk == chunk


def test_each_program_is_compiled_once(tmp_path):
    """Training, evaluation, first weights, samples: as many for six trials as for two,
    and none for a second group of the same kind.
    """

    def compilations(path, n):
        seen = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, secs, **_: seen.append(name)
        )
        carried_out(make_sweep(path, grid.seeds(n)))
        jax.monitoring.clear_event_listeners()
        return sum("backend_compile" in name for name in seen)

    assert 0 < compilations(tmp_path / "a", 6) <= compilations(tmp_path / "b", 2) + 1


HALVING = dict(
    halving=dict(metric="valid/neg_elbo", rungs=["4 steps", "10 steps"], factor=2, mode="min")
)
# As many as the trials of `done`, whose programs they share.
RATES = [{"hp.lr": lr} for lr in (1e-4, 1e-3, 3e-2, 1e30, 1e-2)]


@pytest.fixture(scope="module")
def halved(tmp_path_factory, compiled_once):
    """A halving sweep that was carried out."""
    it = make_sweep(tmp_path_factory.mktemp("halved") / "whole", RATES, extra=HALVING)
    with pytest.MonkeyPatch.context() as patch:
        compiled_once(patch)
        carried_out(it)
    return it


def test_halving_stops_the_worst_trials_and_continues_the_rest(halved):
    it = halved
    (g,) = it.groups()
    statuses = dict(
        zip(
            [t["overrides"]["hp.lr"] for t in it.read_sweep_json()["trials"]],
            g.statuses(),
            strict=True,
        )
    )
    assert (
        sorted(statuses.values()) == ["done"] * 2 + ["failed: diverged"] + ["stopped"] * 2
        and statuses[1e30] == "failed: diverged"
    )
    kept = [json.loads((g.path / f"rung_{i}" / "rung.json").read_text()) for i in (0, 1)]
    assert [(k["step"], len(k["kept"])) for k in kept] == [(4, 3), (10, 2)]
    for step, among in ((4, g.members), (10, kept[0]["kept"])):
        at = lambda m, step=step: (
            r["neg_elbo"]
            for r in RunDir(it.path / "trials" / m).read_rows()
            if (r["step"], r["split"]) == (step, "valid")
        )
        score = {m: next(at(m), None) for m in among}
        ranked = sorted(among, key=lambda m: (score[m] is None, score[m] or 0, m))
        assert set(ranked[: len(kept[step == 10]["kept"])]) == set(kept[step == 10]["kept"])
    for run, status in zip(g.dirs, g.statuses(), strict=True):
        if status == "stopped":
            assert aigc_jax.load(run.path).step == run.read_json("STATUS.json")["step"] in (4, 10)


def test_halving_sweep_interrupted_at_each_save_has_the_same_rows(
    halved, tmp_path, monkeypatch, compiled_once
):
    compiled_once(monkeypatch)
    again = make_sweep(tmp_path / "parts", RATES, extra=HALVING)
    save, calls = Loop.save_checkpoint, []

    def save_and_fail(loop):
        save(loop)
        loop.checkpoints.wait_until_finished()
        calls.append(loop.step)
        if calls.count(loop.step) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "save_checkpoint", save_and_fail)
    for _ in range(10):
        try:
            group.train_group(again.groups()[0].path, "vmap", report=lambda line: None)
            break
        except KeyboardInterrupt:
            continue
    assert sorted(set(calls)) == [4, 8, 10, 16] and again.rows() == halved.rows()


def test_halving_by_a_missing_metric_is_a_user_error(tmp_path, monkeypatch, compiled_once):
    compiled_once(monkeypatch)
    it = make_sweep(
        tmp_path, RATES[:2], extra=dict(halving=HALVING["halving"] | dict(metric="valid/elbo"))
    )
    with pytest.raises(
        UserError,
        match="no row of step 4 has the metric 'valid/elbo'; available: valid/kl, valid/neg_elbo",
    ):
        group.train_group(it.groups()[0].path, "vmap", report=lambda line: None)


def test_halving_group_with_only_diverged_trials_is_finished(tmp_path):
    it = make_sweep(tmp_path, RATES[:2], extra=HALVING)
    (g,) = it.groups()
    for run in g.dirs:
        run.path.mkdir(parents=True)
        run.write_status("failed: diverged", 2, reason="loss is not finite at step 2")
    assert (
        group.train_group(g.path, report=lambda line: None) == 0
        and not (g.path / "rung_0").exists()
    )


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--experiment=experiments/vae_variants.py", "--seeds=2"], "--seeds is not read by"),
        (["--experiment=experiments/vae_variants.py", "--only=vmap"], "did you mean 'vamp'"),
        (["--experiment=vae_beta", "--only=a"], "--only is for experiments that train parts"),
        (["--experiment=experiments/nothing.py"], "no such file"),
        (
            ["--config=configs/vae_digits.py", "--seeds=2", "--engine=slrum"],
            "--engine = 'slrum' is none of local",
        ),
        (["--config=configs/vae_digits.py", "--grid", "hp.lrr=1"], "config.hp.lrr: no such key"),
        ([], "needs --experiment=FILE, or --config=FILE"),
        (["--config=configs/vae_digits.py", "--seeds=2", "--route=vmpa"], "did you mean 'vmap'"),
    ],
)
def test_invalid_sweeps_are_one_line_errors(capsys, tmp_path, monkeypatch, more, sentence):
    from aigc_jax.cli import main as cli

    monkeypatch.chdir(ROOT)
    assert cli.main(["sweep", f"--workdir={tmp_path / 's'}", *more]) == 1
    err = capsys.readouterr().err
    assert (
        err.startswith("error: ")
        and sentence in err
        and len(err.splitlines()) == 1
        and not (tmp_path / "s").exists()
    )

"""Adaptive search: batches as groups, the same trials however often it is killed,
failures, duplicates, and mistakes as one sentence.

Most trainings are an engine's that writes rows by a formula; one is real.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from tiny_configs import SMALL_RUN, VAE, tiny

from aigc_jax.cli import main as cli
from aigc_jax.sweeps import evidence, experiment, launch
from aigc_jax.sweeps.engines.base import ExitStatus
from aigc_jax.sweeps.engines.local import Local
from aigc_jax.sweeps.search import JOURNAL, Study, run_search, suggest_first_batch
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import FINAL, make_trials
from aigc_jax.training import config as configs
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.quantities import format_number

try:
    import optuna
except ImportError:
    optuna = None

needs_optuna = pytest.mark.skipif(
    optuna is None, reason="no optuna: pip install -r requirements-engines.txt"
)


class Killed(BaseException):
    pass


def valley(overrides):
    """Least at lr = 1e-3, beta = 2."""
    return (math.log10(overrides["hp.lr"]) + 3) ** 2 + (overrides.get("hp.beta", 2.0) - 2) ** 2


def folder_of(job) -> Path:
    """The directory of the group that a job trains."""
    return Path(next(w for w in job.words if w.startswith("--workdir="))[len("--workdir=") :])


class Formula:
    """An engine that trains nothing: two valid rows a trial, the second worse; None is
    a trial that diverges, an exception a group that crashes.
    """

    def __init__(self, value=valley, event=lambda what: None):
        self.value, self.event, self.calls, self.trained = value, event, [], []

    def run(self, jobs, look):
        look()
        self.calls.append(len(jobs))
        return {job.name: self.train(folder_of(job)) for job in jobs}

    def train(self, path):
        it = Group(path)
        for member, run, status in zip(it.stored["members"], it.dirs, it.statuses(), strict=True):
            if status in FINAL:
                continue
            self.event("training")
            run.path.mkdir(parents=True, exist_ok=True)
            (run / "rows.jsonl").unlink(missing_ok=True)
            self.trained.append(member["id"])
            try:
                value = self.value(member["overrides"])
            except ArithmeticError as e:
                return ExitStatus(1, str(e))
            run.append_row(dict(step=0, split="valid", neg_elbo=-1.0))
            run.append_row(dict(step=4, split="train", neg_elbo=-1.0))
            for step, more in ((4, 0.0), (8, 1.0)) if value is not None else ():
                run.append_row(dict(step=step, split="valid", neg_elbo=value + more, odd=None))
            run.sync_rows()
            run.close()
            if value is None:
                run.write_status("failed: diverged", 5, reason="loss is not finite at step 5")
            else:
                run.write_status("done", 8)
        return ExitStatus(0, "")


def two(suggest):
    return {
        "hp.lr": suggest.float("hp.lr", 1e-5, 1e-1, log=True),
        "hp.beta": suggest.float("hp.beta", 0.5, 4.0),
    }


def search_of(function=two, trials=7, batch=3, objective="valid/neg_elbo", mode="min"):
    return experiment.Search(
        draw=function, objective=objective, mode=mode, batch=batch, trials=trials
    )


def finish(path, engine=None, search=None, **more):
    """A search, carried out; the sweep and whether it was completed."""
    it, lines = Sweep(path), []
    run = lambda part: launch.run_unfinished_groups(part, engine or Formula(), report=lines.append)
    return (
        it,
        run_search(it, tiny("vae"), search or search_of(**more), "test", run, report=lines.append),
        lines,
    )


def trials_in(path):
    """Of each trial of the journal: state, value, parameters and overrides."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(
        study_name="search", storage=JournalStorage(JournalFileBackend(str(path / JOURNAL)))
    )
    return [(t.state.name, t.value, t.params, t.user_attrs["overrides"]) for t in study.trials]


def rows_of(it):
    (it.path / "rows.csv").write_text(evidence.format_csv(it.rows()), newline="")
    return (it.path / "rows.csv").read_bytes()


# -- suggestions and reported values


@needs_optuna
def test_each_batch_is_one_group_and_reports_its_best_valid_values(tmp_path):
    engine = Formula()
    it, complete, lines = finish(tmp_path, engine)
    assert (
        complete
        and engine.calls == [1, 1, 1]
        and [len(g.members) for g in it.groups()] == [3, 3, 1]
    )
    trials = trials_in(tmp_path)
    assert len(trials) == 7 and {state for state, *_ in trials} == {"COMPLETE"}
    for (_, value, params, overrides), given in zip(
        trials, it.read_sweep_json()["trials"], strict=True
    ):
        # not -1: of step 0, or of the train split
        assert params == overrides == given["overrides"] and value == valley(overrides)
        assert all(float(f"{v:.6g}") == v for v in params.values())
        config = json.loads(
            (
                next(g for g in it.groups() if given["id"] in g.members).path / "group.json"
            ).read_text()
        )["members"][0]["config"]
        assert config["best_metric"] == "valid/neg_elbo"
    best = min(trials, key=lambda t: t[1])
    assert (
        format_number(best[1]) in lines[-1]
        and f"lr={best[3]['hp.lr']}" in lines[-1]
        and "7 of 7 trials, 0 failed" in lines[-1]
    )
    again = Formula()
    assert finish(tmp_path, again)[1] and not again.trained, "what is finished is not trained again"


@needs_optuna
def test_static_keys_separate_groups_and_the_journal_preserves_tuples(tmp_path):
    def search(suggest):
        widths = suggest.choice("model.widths", ((12,),), ((16,),))
        return {
            "model.widths": widths,
            "batch_size": suggest.int("batch_size", 8, 9),
            "hp.lr": suggest.float("hp.lr", 1e-4, 1e-2),
        }

    engine = Formula()
    it, complete, _ = finish(tmp_path, engine, function=search, batch=8, trials=8)
    shapes = {
        (tuple(map(tuple, o["model.widths"])), o["batch_size"]) for *_, o in trials_in(tmp_path)
    }
    assert complete and engine.calls == [len(shapes)] == [len(it.groups())] and len(shapes) > 2
    again = Formula()
    assert (
        finish(tmp_path, again, function=search, batch=8, trials=12)[1] and len(again.trained) == 4
    ), "a search can be made longer"


def values(value, mode="min"):
    """Of 40 trials each of three searches, which differ in the random state alone, the
    values of the last 20.
    """
    out = []
    for seed in range(3):
        study, found = (
            Study(
                configs.override(tiny("vae"), {"seed": seed}),
                search_of(trials=40, batch=4, mode=mode),
            ),
            [],
        )
        while numbers := study.fill_batch():
            for number in numbers:
                found.append(value(study.trials[number].overrides))
                study.report_value(number, found[-1])
        out += found[-20:]
    return out


@needs_optuna
@pytest.mark.parametrize("mode, sign", [("min", 1), ("max", -1)])
def test_search_finds_the_minimum(mode, sign):
    """Half of uniform draws are below 2.24; of 60, 42 or more once in 1,000 times."""
    found = [sign * v for v in values(lambda o: sign * valley(o), mode)]
    assert sum(v < 2.24 for v in found) >= 42, found


@needs_optuna
def test_search_avoids_regions_where_trials_fail():
    """Half of the range fails: uniform draws fail 30 times of 60."""
    assert sum(v is None for v in values(lambda o: None if o["hp.lr"] > 1e-3 else 5.0)) < 25


# Of optuna 5 for the search "search" and seed 0: a search goes on with the draws it
# began with.
DRAWN = [[0.00709398, 1.00049], [0.000233605, 1.56105], [5.18434e-05, 3.70959]]


@needs_optuna
def test_suggestions_depend_on_the_search_name_and_seed_only():
    def drawn(name="search", **changes):
        study = Study(
            configs.override(tiny("vae"), changes),
            dataclasses.replace(search_of(trials=3), name=name),
        )
        return [study.trials[n].overrides for n in study.fill_batch()]

    first = drawn()
    assert drawn(steps="17 steps", num_metric_samples=9) == first == drawn(latent_dims=(7,))
    assert drawn("other") != first != drawn(seed=1)
    assert [list(o.values()) for o in first] == DRAWN


@needs_optuna
def test_diverged_trial_is_reported_as_failed_and_not_retrained(tmp_path):
    engine = Formula(lambda o: None if o["hp.lr"] > 1e-3 else 5.0)
    it, complete, lines = finish(tmp_path, engine, trials=8, batch=4)
    trials = trials_in(tmp_path)
    failed = [o["hp.lr"] > 1e-3 for *_, o in trials]
    assert complete and [state == "FAIL" for state, *_ in trials] == failed and 0 < sum(failed) < 8
    assert len(engine.trained) == len(set(engine.trained)) == 8
    assert f"{sum(failed)} failed" in lines[-1]
    again = Formula()
    assert (
        finish(tmp_path, again, trials=8, batch=4)[1]
        and not again.trained
        and trials_in(tmp_path) == trials
    )


@needs_optuna
def test_repeated_suggestion_is_trained_once(tmp_path):
    engine = Formula()
    search = lambda suggest: {"hp.lr": suggest.choice("hp.lr", 1e-3, 1e-2)}
    it, complete, _ = finish(tmp_path, engine, function=search, trials=9)
    trials = trials_in(tmp_path)
    assert complete and len(engine.trained) == len(set(engine.trained)) == 2 == len(
        it.read_sweep_json()["trials"]
    )
    assert len(trials) == 9 and all(value == valley(o) for _, value, _, o in trials)
    assert len(rows_of(it).splitlines()) == 1 + 2 * 4
    keys = iter(
        [
            {"hp.lr": 1e-3, "hp.beta": 1.0},
            {"hp.beta": 1.0, "hp.lr": 1e-3},
            {"run.samples": 8, "hp.beta": 1.0, "hp.lr": 1e-3},
        ]
        * 2
    )
    engine = Formula()  # the same identity, written in other ways
    assert (
        finish(tmp_path / "b", engine, search=search_of(lambda suggest: next(keys), trials=3))[1]
        and len(engine.trained) == 1
    )


# -- killed


def events(monkeypatch, event):
    """Calls `event` before and after everything that is written down."""

    def around(owner, name):
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            event(f"before {name}")
            out = real(*args, **kwargs)
            event(f"after {name}")
            return out

        monkeypatch.setattr(owner, name, wrapped)

    around(optuna.storages.journal.JournalFileBackend, "append_logs")
    around(documents, "write_atomically")


@needs_optuna
def test_search_killed_at_any_moment_ends_with_the_same_trials(tmp_path, monkeypatch):
    diverges = lambda o: None if o["hp.beta"] > 2 else valley(o)
    size = dict(trials=3, batch=2)
    whole, _, _ = finish(tmp_path / "whole", Formula(diverges), **size)
    expected, rows = trials_in(whole.path), rows_of(whole)
    assert {state for state, *_ in expected} == {"COMPLETE", "FAIL"}
    moment = 0
    while True:
        left, path = [moment], tmp_path / str(moment)

        def event(what, left=left):
            left[0] -= 1
            if left[0] == -1:
                raise Killed(what)

        with monkeypatch.context() as patch:
            events(patch, event)
            engine = Formula(diverges, event)
            try:
                finish(path, engine, **size)
            except Killed:
                pass
            else:
                break  # all that is written down was left behind unharmed
        finished = {p.parent.name for p in path.glob("trials/*/STATUS.json")}
        again = Formula(diverges)
        it, complete, _ = finish(path, again, **size)
        assert complete and trials_in(path) == expected and rows_of(it) == rows, moment
        assert not finished.intersection(again.trained), moment
        moment += 1
    assert moment > 30


@pytest.mark.slow  # killed once at every moment above
@needs_optuna
def test_repeatedly_killed_search_suggests_the_same_trials(tmp_path, monkeypatch):
    size = dict(trials=12, batch=5)  # the first ten are drawn at random
    whole, _, _ = finish(tmp_path / "whole", **size)
    left, trained, kills = [0], [], 0

    def event(what):
        left[0] -= 1
        if left[0] == 0:
            raise Killed(what)

    while True:
        with monkeypatch.context() as patch:
            events(patch, event)
            left[0] = 5 + kills % 7
            engine = Formula(event=event)
            try:
                it, complete, _ = finish(tmp_path / "killed", engine, **size)
                break
            except Killed:
                kills += 1
            finally:
                trained += engine.trained
    assert (
        complete
        and kills > 20
        and trials_in(it.path) == trials_in(whole.path)
        and rows_of(it) == rows_of(whole)
    )
    assert set(trained) == {t["id"] for t in it.read_sweep_json()["trials"]}


@needs_optuna
def test_truncated_journal_line_and_stale_lock_are_repaired(tmp_path):
    whole, _, _ = finish(tmp_path / "whole")
    expected = trials_in(whole.path)
    for size in (1, 40):
        path = tmp_path / str(size)
        with pytest.raises(Killed):
            finish(path, Formula(event=lambda what: (_ for _ in ()).throw(Killed())))
        journal = path / JOURNAL
        journal.write_bytes(journal.read_bytes()[:-size])  # the last suggested trial
        journal.with_name(journal.name + ".lock").symlink_to("nowhere")
        assert finish(path)[1] and trials_in(path) == expected


@needs_optuna
def test_crashed_group_is_reported_as_failed_unless_all_crash(tmp_path):
    def sizes(suggest):
        return {
            "batch_size": suggest.choice("batch_size", 8, 16),
            "hp.lr": suggest.float("hp.lr", 1e-4, 1e-2),
        }

    def crash(overrides):
        if overrides["batch_size"] == 16:
            raise ArithmeticError("out of memory")
        return 1.0

    engine = Formula(crash)
    assert finish(tmp_path / "a", engine, function=sizes, trials=12, batch=6)[1]
    assert {(state, o["batch_size"]) for state, *_, o in trials_in(tmp_path / "a")} == {
        ("COMPLETE", 8),
        ("FAIL", 16),
    }
    crashed = [name for name in engine.trained if "batch_size=16" in name]
    assert len(crashed) == 4 and len(set(crashed)) == 2, (
        "each group twice, and none again with the next batch"
    )

    def missing(overrides):
        raise ArithmeticError("no such data")

    for _ in range(2):
        with pytest.raises(
            UserError,
            match=r"all trials of a batch crashed with objective = 'valid/neg_elbo': no such "
            r"data; .* tries them again",
        ):
            finish(tmp_path / "b", Formula(missing))
        assert [state for state, *_ in trials_in(tmp_path / "b")] == ["RUNNING"] * 3
    assert finish(tmp_path / "b")[1]
    finish(tmp_path / "whole")
    assert trials_in(tmp_path / "b") == trials_in(tmp_path / "whole")


@needs_optuna
def test_stopped_trials_are_not_reported(tmp_path):
    class Preempted(Formula):
        def train(self, path):
            for run in Group(path).dirs:
                run.path.mkdir(parents=True)
                run.write_status("preempted", 3)
            return ExitStatus(143, "")

    assert not finish(tmp_path, Preempted())[1] and {
        state for state, *_ in trials_in(tmp_path)
    } == {"RUNNING"}
    assert finish(tmp_path)[1] and {state for state, *_ in trials_in(tmp_path)} == {"COMPLETE"}


# -- mistakes


def test_missing_optuna_is_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for act in (
        lambda: finish(tmp_path / "x"),
        lambda: suggest_first_batch(tiny("vae"), search_of()),
    ):
        with pytest.raises(
            UserError,
            match=r"search\(suggest\) needs the package optuna: pip install optuna \(extra eng",
        ):
            act()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "more, words",
    [
        ({"objective": None}, r"^Search\.objective = None must be a metric of the valid split"),
        ({"objective": "test/loss"}, "objective = 'test/loss' must be a metric of the valid split"),
        ({"mode": "least"}, "mode = 'least' must be 'min' or 'max'"),
        ({"batch": 0}, "batch = 0 must be a number of trials, 1 to "),
        ({"trials": 2.5}, "trials = 2.5 must be a number of trials, 1 to "),
        ({"draw": 3}, "draw = 3 must be a function of suggest"),
        ({"objectiv": "valid/x"}, "Search has no field 'objectiv'; did you mean 'objective'"),
    ],
)
def test_invalid_search_is_a_user_error(more, words):
    with pytest.raises(UserError, match=words):
        experiment.Search(**dict(draw=two, objective="valid/x") | more)


def test_an_experiment_has_a_sweep_or_a_search():
    search = experiment.Search(draw=two, objective="valid/x")
    assert (search.mode, search.batch, search.trials) == ("min", 8, 64)
    for sources, found in (({}, "none"), (dict(search=search, sweep=list), "sweep and search")):
        with pytest.raises(UserError, match=f"exactly one of .* but has {found}$"):
            experiment.Experiment(config="vae_digits", **sources)
    made = experiment.Experiment(config="vae_digits", search=search)
    assert experiment.list_trial_overrides(made) == []


@needs_optuna
@pytest.mark.parametrize(
    "function, words",
    [
        (
            lambda s: {"hp.lrr": s.float("hp.lr", 1e-4, 1e-2)},
            r"config\.hp\.lrr: no such key.*; did you mean 'hp\.lr'",
        ),
        (
            lambda s: {"hp.lr": s.float("hp.lr", 1e-2, 1e-4)},
            r"suggest\.float\('hp\.lr', 0\.01, 0\.0001\) needs low < high",
        ),
        (lambda s: {"hp.lr": s.float("hp.lr", 0, 1, log=True)}, "needs 0 < low < high"),
        (lambda s: {"seed": s.int("seed", 3, 3)}, "needs low < high"),
        (lambda s: {"seed": s.choice("seed")}, "has no option"),
        (lambda s: None, "is None: each must be a dict of overrides"),
    ],
)
def test_invalid_search_function_fails_before_any_suggestion(tmp_path, function, words):
    with pytest.raises(UserError, match=words):
        finish(tmp_path, function=function)
    assert trials_in(tmp_path) == []


@needs_optuna
def test_missing_objective_is_named(tmp_path):
    with pytest.raises(
        UserError,
        match="'valid/neg_elb' is not in any row; available: valid/neg_elbo, valid/odd; "
        "did you mean 'valid/neg_elbo'",
    ):
        finish(tmp_path / "a", objective="valid/neg_elb")
    it, complete, _ = finish(tmp_path / "b", objective="valid/odd")  # there, but never finite
    assert complete and {state for state, *_ in trials_in(it.path)} == {"FAIL"}


@needs_optuna
def test_search_refuses_the_directory_of_another_sweep(tmp_path):
    finish(tmp_path / "a", trials=3)
    for more, words in (
        (dict(batch=2), "batch = 3, not 2: use another workdir"),
        (dict(mode="max"), "mode = 'min', not 'max'"),
        (dict(objective="valid/x"), "objective = 'valid/neg_elbo', not 'valid/x'"),
    ):
        with pytest.raises(UserError, match=words):
            finish(tmp_path / "a", **more)
    finish(tmp_path / "c", function=lambda s: {"hp.lr": s.choice("hp.lr", 1e-4, 1e-3)}, trials=3)
    with pytest.raises(UserError, match=r"draws 'hp\.lr' from Categorical.*: use another workdir"):
        finish(
            tmp_path / "c",
            function=lambda s: {"hp.lr": s.choice("hp.lr", 1e-4, 1e-3, 1e-2)},
            trials=4,
        )
    Sweep(tmp_path / "b").add_trials(make_trials(tiny("vae"), [{"seed": 1}]), "test")
    with pytest.raises(UserError, match="is a sweep, not a search"):
        finish(tmp_path / "b")


# -- real

EXPERIMENT = """
from aigc_jax.sweeps.experiment import Experiment, Search

def draw(suggest):
    return {{"hp.lr": suggest.float("hp.lr", 1e-4, 1e-2, log=True)}}

EXPERIMENT = Experiment(
    config={config!r},
    search=Search(draw=draw, objective="valid/neg_elbo", batch=2, trials=2),
)
"""


@needs_optuna
def test_search_from_the_command_line(tmp_path, monkeypatch, capsys):
    """Its group is trained in this process, not in one of its own."""

    def run(engine, jobs, look):
        return {job.name: ExitStatus(cli.main(job.words[2:]), "") for job in jobs}

    monkeypatch.setattr(Local, "run", run)
    file = tmp_path / "rates.py"
    file.write_text(EXPERIMENT.format(config=str(ROOT / "configs/vae_digits.py")))
    tuples = lambda v: str(v).replace(" ", "")
    small = SMALL_RUN | VAE | {"steps": "8 steps", "metrics": "()", "num_metric_samples": 8}
    words = [
        "sweep",
        f"--experiment={file}",
        f"--workdir={tmp_path / 'x'}",
        *(f"--config.{k}={tuples(v) if isinstance(v, tuple) else v}" for k, v in small.items()),
    ]
    code = cli.main([*words, "--route=vmap"])
    out, err = capsys.readouterr()
    assert code == 0, err
    trials = trials_in(tmp_path / "x")
    it = Sweep(tmp_path / "x")
    assert [len(g.members) for g in it.groups()] == [
        2
    ] and "search: 2 of 2 trials, 0 failed; best valid/neg_elbo" in out
    for (state, value, *_), given in zip(trials, it.read_sweep_json()["trials"], strict=True):
        run = it.trial_dir(given["id"])
        assert state == "COMPLETE" and value == min(
            row["neg_elbo"] for row in run.read_rows() if row["split"] == "valid" and row["step"]
        )
        assert value == run.read_json("STATUS.json")["best"]["value"]
    assert (it.path / "figure.png").exists() and "| lr | n |" in (it.path / "table.md").read_text()

"""Tables and figures of sweeps and comparisons; rows and statuses are written as a
group would write them.
"""

import copy
import dataclasses
import math
import re
import shutil
from unittest import mock

import pytest
from helpers import ROOT, experiment_text
from tiny_configs import tiny

from aigc_jax.sweeps import compare, evidence, grid, plots, report
from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.sweeps.sweep import Group, Sweep
from aigc_jax.sweeps.trials import make_trials
from aigc_jax.training import config as configs
from aigc_jax.training import config_identity
from aigc_jax.training.config_identity import IDENTITY_VERSION
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

QUIET = dict(report=lambda line, **_: None)
TWO_RATES = grid.product(grid.values("hp.lr", 1e-3, 1e-2), grid.seeds(3))


def swept(path, overrides=TWO_RATES, extra=None, **changes):
    """A sweep directory with its trials, before any is trained."""
    sweep = Sweep(path)
    base = configs.override(tiny("vae"), {"steps": 16, "metrics": ()} | changes)
    sweep.add_trials(make_trials(base, overrides), "test", extra)
    return sweep


def finish(sweep, number, value, steps=(0, 8, 16), status="done", test=True, **more):
    """Write a trial's rows: `value` at each step of the valid split, and at the end of
    the test split.
    """
    run = sweep.trial_dir(sweep.read_sweep_json()["trials"][number]["id"])
    run.path.mkdir(parents=True)
    for step in steps:
        run.append_row(dict(step=step, split="valid", neg_elbo=value, **more))
    if test:
        run.append_row(dict(step=steps[-1], split="test", neg_elbo=value, **more))
    run.close()
    run.write_status(status, steps[-1] if steps else 0)
    run.write_json("environment.json", {})


def complete(sweep):
    for i in range(len(sweep.read_sweep_json()["trials"])):
        finish(sweep, i, 10.0 * i)
    return sweep


CAPTIONS = ("Mean over n trials", "Bold: ")  # tested in test_figures


def write_table(folder, text, drawing):
    (folder / "table.md").write_text(text)


def table(sweep, **more):
    """The cells of a sweep's table, and the sentences below it."""
    with mock.patch.object(plots, "save_table_and_figures", write_table):
        report.write_sweep_results(sweep, **QUIET, **more)
    lines = (sweep.path / "table.md").read_text().split("\n")
    cells = [
        [c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")
    ]
    notes = [line for line in lines if line and not line.startswith("|")]
    return cells[:1] + cells[2:], [line for line in notes if not line.startswith(CAPTIONS)]


def notes_drawn(sweep, monkeypatch):
    """What stands below the figure."""
    drawn = []
    real = plots.make_figure

    def make_figure(drawing):
        out = real(drawing)
        text = (out._supxlabel.get_text() if out._supxlabel else "").replace("\n", " ")
        drawn.append((re.split(r" ?(?:Lines|Best \(\w+ at)", text)[0], out))
        return out

    monkeypatch.setattr(plots, "make_figure", make_figure)
    report.write_sweep_results(sweep, **QUIET)
    return drawn[-1]


# -- a directory belongs to one config


def test_trials_of_another_config_are_refused(tmp_path):
    swept(tmp_path, grid.seeds(2))
    before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(
        UserError,
        match=r"holds a sweep of another config: config\.latent_dims is .* in the stored sweep and "
        r".* in this sweep; use another work",
    ):
        swept(tmp_path, [{"seed": s} for s in (5, 6)], latent_dims=(5,))
    with pytest.raises(
        UserError, match=r"config\.hp\.lr is .* in the stored sweep and 0\.5 in this sweep"
    ):
        swept(tmp_path, [{"seed": 7}], **{"hp.lr": 0.5})
    assert (tmp_path / "sweep.json").read_bytes() == before and len(
        Sweep(tmp_path).groups_by_name()
    ) == 1


def test_grid_can_be_extended_by_another_key(tmp_path):
    swept(tmp_path, grid.seeds(2))
    sweep = swept(tmp_path, grid.product(grid.values("latent_dims", (3,), (5,)), grid.seeds(2)))
    base = tiny("vae").latent_dims
    assert sweep.varied_keys() == ["latent_dims"] and len(
        sweep.read_sweep_json()["trials"]
    ) == 6 - 2 * (base in ((3,), (5,)))
    complete(sweep)
    cells, notes = table(sweep)
    assert (
        {row[0] for row in cells[1:]} == {str(base), "(3,)", "(5,)"}
        and {row[1] for row in cells[1:]} == {"2"}
        and not notes
    )


def test_differently_spelled_trial_is_the_same_trial(tmp_path):
    beta = configs.flatten_config(tiny("vae"))["hp.beta"]
    swept(tmp_path, grid.seeds(2))
    sweep = swept(tmp_path, grid.product(grid.values("hp.beta", beta, 2 * beta), grid.seeds(2)))
    assert (
        len(sweep.read_sweep_json()["trials"])
        == 4
        == sum(len(g.members) for g in sweep.groups_by_name())
    )


def test_trials_of_another_halving_are_refused(tmp_path):
    halving = dict(metric="valid/neg_elbo", rungs=["4 steps"], factor=2, mode="min")
    swept(tmp_path, grid.seeds(2), dict(halving=halving))
    for extra in (None, dict(halving=halving | dict(factor=3))):
        with pytest.raises(UserError, match="holds a sweep with halving"):
            swept(tmp_path, grid.seeds(4), extra)
    swept(tmp_path, grid.seeds(4), dict(halving=halving))


def test_rows_name_every_varied_key_of_every_trial(tmp_path):
    sweep = complete(swept(tmp_path, [{}, {"hp.beta": 3.0}, {"latent_dims": (5,)}]))
    report.write_sweep_results(sweep, **QUIET)
    rows = evidence.read_rows(tmp_path)
    assert list(rows[0])[:6] == ["trial", "hp.beta", "latent_dims", "seed", "step", "split"]
    base = configs.flatten_config(tiny("vae"))
    first = {(row["hp.beta"], row["latent_dims"], row["seed"]) for row in rows}
    assert first == {
        (base["hp.beta"], str(base["latent_dims"]), 0),
        (3.0, str(base["latent_dims"]), 0),
        (base["hp.beta"], "(5,)", 0),
    }


def test_key_named_as_a_metric_has_a_separate_column(tmp_path):
    sweep = swept(tmp_path, grid.values("precision", "float32", "bfloat16"))
    for i in range(2):
        finish(sweep, i, 1.0, precision=0.5 + i / 4)
    cells, _ = table(sweep)
    assert cells[0] == ["precision", "n", "test neg_elbo", "test precision"]
    assert [row[0::3] for row in cells[1:]] == [["float32", "0.5"], ["bfloat16", "**0.75**"]]


# -- what is missing is counted


def test_complete_sweep_has_no_notes(tmp_path, monkeypatch):
    sweep = complete(swept(tmp_path))
    cells, notes = table(sweep)
    assert (
        cells
        == [["lr", "n", "test neg_elbo"], ["0.001", "3", "**10 (5.8)**"], ["0.01", "3", "40 (5.8)"]]
        and not notes
    )
    assert notes_drawn(sweep, monkeypatch)[0] == ""


def test_missing_and_unfinished_trials_are_counted(tmp_path, monkeypatch):
    sweep = swept(tmp_path)
    finish(sweep, 0, 1.0)
    finish(sweep, 1, 3.0)
    finish(sweep, 2, 50.0, (0, 8), "running", test=False)
    finish(sweep, 3, 7.0)
    finish(sweep, 4, 99.0, (0,), "failed: diverged", test=False)
    cells, notes = table(sweep)
    assert cells[1:] == [["0.001", "2 of 3", "**2 (1)**"], ["0.01", "1 of 3, 1 diverged", "7"]]
    assert notes == [
        "6 trials: 3 done, 1 interrupted, 1 failed: diverged, 1 waiting.",
        "1 of 6 trials is interrupted, at step 8; the same sweep command resumes it.",
        "Means are over 3 of 6 trials, leaving out 1 trial that failed, 2 trials without a "
        "row of the test split.",
        f"Diverged: {sweep.read_sweep_json()['trials'][4]['id']}.",
    ]
    text, figure = notes_drawn(sweep, monkeypatch)
    assert text == (
        f"{notes[0]} {notes[1]} Means are over 3 of 6 trials, leaving out 1 trial that failed, "
        "1 trial without a value of valid/neg_elbo, 1 trial that ended before the others of the "
        "line."
    )
    (axes,) = figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["lr = 0.001 (2 of 3 trials, best)", "lr = 0.01 (1 of 3 trials)"]
    assert len(axes.lines) == 4, "a thin line for each trial that ended before the others"


def test_trials_without_their_rows_are_counted(tmp_path):
    sweep = complete(swept(tmp_path))
    (sweep.trial_dir(sweep.read_sweep_json()["trials"][5]["id"]) / "rows.jsonl").unlink()
    cells, notes = table(sweep)
    assert [row[1] for row in cells[1:]] == ["3", "2 of 3"]
    assert notes == [
        "Means are over 5 of 6 trials, leaving out 1 trial without a row of the test split."
    ]
    for trial in sweep.read_sweep_json()["trials"][3:]:
        shutil.rmtree(sweep.trial_dir(trial["id"]).path)
    cells, notes = table(sweep)
    assert cells[2] == ["0.01", "0 of 3", ""] and notes[0] == "6 trials: 3 done, 3 waiting."


def test_trials_of_unequal_length_are_not_averaged(tmp_path, monkeypatch):
    sweep = swept(tmp_path)
    for i in range(5):
        finish(sweep, i, 10.0 * i)
    finish(sweep, 5, 1000.0, (0, 8, 16, 24))
    cells, notes = table(sweep)
    assert cells == [
        ["lr", "n", "step", "test neg_elbo"],
        ["0.001", "3", "16", "**10 (5.8)**"],
        ["0.01", "1 of 3", "24", "1,000"],
    ]
    assert notes == [
        "Means are over 4 of 6 trials, leaving out 2 trials that ended before the others of "
        "the line.",
        "Last steps differ: 16 (3 trials), 24 (1 trial).",
    ]
    assert notes_drawn(sweep, monkeypatch)[0] == ("Last steps differ: 16 (5 trials), 24 (1 trial).")


def test_nonfinite_values_are_counted(tmp_path):
    sweep = swept(tmp_path)
    for i in range(6):
        finish(sweep, i, None if i == 1 else float(i))
    cells, _ = table(sweep)
    assert cells[1] == ["0.001", "3", "**1 (1), n = 2**"]


def test_diverged_sweep_has_a_table_and_no_traceback(tmp_path, monkeypatch):
    sweep = swept(tmp_path)
    for i in range(6):
        finish(sweep, i, None, (8,), "failed: diverged", test=False)
    mine = Experiment(config="x", sweep=list, metric="test/neg_elbo")
    cells, notes = table(sweep, experiment=mine)
    failed = "0 of 3, 3 diverged"
    assert [row[:2] for row in cells[1:]] == [["0.001", failed], ["0.01", failed]]
    assert notes[:2] == [
        "6 trials: 6 failed: diverged.",
        "Means are over 0 of 6 trials, leaving out 6 trials that failed.",
    ]
    assert notes_drawn(sweep, monkeypatch)[0].endswith("No row has a finite number.")


def test_failed_trial_does_not_report_the_untrained_model(tmp_path):
    sweep = swept(tmp_path)
    for i in range(6):
        finish(sweep, i, 48.9, (0,), "failed: diverged", test=False)
    failed = "0 of 3, 3 diverged"
    assert table(sweep)[0][1:] == [["0.001", failed, ""], ["0.01", failed, ""]]


def test_default_table_replaces_one_that_needs_missing_trials(tmp_path):
    def own(rows):
        best = [r["neg_elbo"] for r in rows if r["split"] == "test" and r["hp.lr"] == 1e-2]
        return f"{min(best)}\n"

    def figure(rows, axes):
        axes.plot([own(rows)])

    mine, said = Experiment(config="x", sweep=list, table=own, figure=figure), []
    sweep = swept(tmp_path)
    finish(sweep, 0, 1.0)
    report.write_sweep_results(sweep, mine, report=lambda line, **_: said.append(line))
    assert "| 0.001 | 1 of 3 |" in (tmp_path / "table.md").read_text()
    assert sum("needs the missing trials (ValueError" in line for line in said) == 2
    for i in range(1, 6):
        finish(sweep, i, float(i))
    assert table(sweep, experiment=mine)[1] == ["3.0"]
    with pytest.raises(KeyError):  # with all trials it is a bug
        wrong = dataclasses.replace(mine, table=lambda rows: rows[0]["hp.beta"])
        report.write_sweep_results(sweep, wrong, **QUIET)


# -- committed results


def test_committed_results_without_own_functions_are_redrawn(tmp_path, monkeypatch):
    from aigc_jax.cli import main as cli

    sweep = swept(tmp_path / "s", best_metric="valid/kl")
    for i in range(5):
        finish(sweep, i, 10.0 * i, kl=float(i))
    (tmp_path / "question.py").write_text(experiment_text("config='x'"))
    words = ["figure", f"--experiment={tmp_path / 'question.py'}"]
    assert cli.main([*words, f"--workdir={tmp_path / 's'}", "--commit"]) == 0
    kept = tmp_path / "results" / "question"
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    assert (
        before["table.md"] == (tmp_path / "s/table.md").read_bytes()
        and b"5 of 6 trials" in before["table.md"]
    )
    assert before["figure.png"] == (tmp_path / "s/figure.png").read_bytes()
    assert cli.main(words) == 0
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before


def test_committed_rows_without_an_experiment_are_not_changed(tmp_path, capsys):
    from aigc_jax.cli import main as cli

    (tmp_path / "question.py").write_text(experiment_text("config='x'"))
    kept = tmp_path / "results" / "question"
    kept.mkdir(parents=True)
    (kept / "rows.csv").write_text("trial,hp.lr,seed,step,split,loss\na,1,0,4,valid,2.0\n")
    (kept / "table.md").write_text("made by hand\n")
    assert cli.main(["figure", f"--experiment={tmp_path / 'question.py'}"]) == 1
    err = capsys.readouterr().err
    assert "has no trials.json" in err and len(err.splitlines()) == 1
    assert (kept / "table.md").read_text() == "made by hand\n" and not (
        kept / "figure.png"
    ).exists()


# -- grids


@pytest.mark.parametrize(
    "text, values",
    [
        ('data.path="a,b",c', ["a,b", "c"]),
        ("data.path='a,b'", ["a,b"]),
        ("data.path=2020,2021", ["2020", "2021"]),
        ("data.path= a , b ", ["a", "b"]),
        ("data.path=it's,that's", ["it's", "that's"]),
        ("data.path='',x", ["", "x"]),
        ('data.path=" a",x', [" a", "x"]),
        ("hp.lr=1e-4, 3e-4", [1e-4, 3e-4]),
        ("hp.lr=1,2", [1.0, 2.0]),
        ("latent_dims=(3,), (5,6)", [(3,), (5, 6)]),
        ("model.widths=((16,),),((8,),)", [((16,),), ((8,),)]),
        ("metrics='nll,modes',nll", [("nll", "modes"), ("nll",)]),
        ("run.fsdp=true,False", [True, False]),
        ("steps=10 steps,'2 epochs'", ["10 steps", "2 epochs"]),
    ],
)
def test_grid_values_are_parsed_like_flags(text, values):
    base = tiny("vae")
    key, given = text.split("=", 1)
    parsed = grid.parse_grid(text)
    found = [configs.flatten_config(configs.override(base, override))[key] for override in parsed]
    assert found == values and list(map(type, found)) == list(map(type, values))
    for override, value in zip(parsed, values, strict=True):  # --config.KEY=VALUE of the same text
        assert configs.flatten_config(configs.override(base, {key: override[key]}))[key] == value


@pytest.mark.parametrize(
    "text, words",
    [
        ("latent_dims=(3,),(5", r"has an unclosed \("),
        ("latent_dims=3),(5", r"has an unmatched \)"),
        ("data.path='a,b", "has an unclosed '"),
        ("latent_dims=(3],4", r"has an unmatched \]"),
        ("hp.lr=1,,2", "has an empty value"),
        ("hp.lr= ", "must be KEY=VALUE"),
    ],
)
def test_unparsable_grid_is_a_one_line_error(text, words):
    with pytest.raises(UserError, match=words):
        grid.parse_grid(text)


def test_grid_has_a_maximum_number_of_trials():
    for make in (lambda: grid.seeds(10**12), lambda: grid.product(*[grid.seeds(1000)] * 4)):
        with pytest.raises(UserError, match="100,000"):
            make()


@pytest.mark.parametrize(
    "more, words",
    [
        (["--grid", "hp.lr=1", "--grid", "hp.lr=2"], "--grid varies hp.lr twice"),
        (["--grid", "seed=1,2", "--seeds=2"], "varies seed twice"),
        (["--grid", "hp.lr=1,2", "--config.hp.lr=3"], "--config.hp.lr=3 changes no trial"),
    ],
)
def test_key_is_set_in_one_place_only(tmp_path, capsys, more, words):
    from aigc_jax.cli import main as cli

    assert (
        cli.main(
            [
                "sweep",
                f"--config={ROOT / 'configs/vae_digits.py'}",
                f"--workdir={tmp_path / 's'}",
                "--dry_run",
                *more,
            ]
        )
        == 1
    )
    assert words in capsys.readouterr().err


# -- compare


def run(path, rows, status="done", **changes):
    config = configs.override(tiny("vae"), changes)
    it = RunDir(path)
    it.path.mkdir(parents=True)
    it.write_json(
        "config.json",
        dict(
            identity_version=IDENTITY_VERSION,
            hash=config_identity.hash_identity(config),
            changes={},
            data="",
            spec=dict(kind="image", shape=[8, 8, 1], n_train=8),
            config=configs.to_json_dict(config),
        ),
    )
    it.write_status(status, 0)
    for row in rows:
        it.append_row(row)
    it.close()
    return it.path


def compare_as_text(*arguments):
    return "\n\n".join(map(str, compare.compare_runs(*arguments)))


def test_runs_without_a_common_metric_are_compared(tmp_path):
    paths = [
        run(tmp_path / name, [dict(step=step, split="valid", **{metric: 2.0}) for step in (0, 8)])
        for name, metric in (("a", "kl"), ("b", "loss"), ("c", "loss"))
    ]
    paths.append(
        run(
            tmp_path / "d",
            [dict(step=8, split="train", loss=None)],
            "failed: diverged",
            **{"hp.lr": 1e30},
        )
    )
    text = compare_as_text(paths, tmp_path / "c.png")
    assert "No valid/loss of: a, d." in text and "4 trials: 3 done, 1 failed: diverged." in text
    line = next(line for line in text.splitlines() if line.startswith("valid loss"))
    assert line.split()[2:] == ["-", "2", "2", "-"] and (tmp_path / "c.png").stat().st_size > 5000
    with pytest.raises(UserError, match="no number in any row"):
        compare.compare_runs([paths[3], paths[3]], tmp_path / "c.png")


def test_comparison_names_runs_of_unequal_length(tmp_path):
    paths = [
        run(
            tmp_path / f"r{n}",
            [dict(step=step, split="valid", loss=1.0) for step in range(0, n, 4)],
        )
        for n in (9, 13)
    ]
    text = compare_as_text(paths, tmp_path / "c.png")
    assert "Last steps differ: 8 (1 trial), 12 (1 trial)." in text
    assert next(line for line in text.splitlines() if line.startswith("valid step")).split()[
        2:
    ] == ["8", "12"]
    with pytest.raises(UserError, match="cannot write to .*No such file or directory"):
        compare.compare_runs(paths, tmp_path / "missing" / "c.png")


def test_comparison_of_fifty_runs_has_one_line_per_run(tmp_path, monkeypatch):
    paths = [
        run(
            tmp_path / f"run_{i:02}",
            [
                dict(
                    step=s,
                    split="valid",
                    loss=math.exp(-s / (i + 1)),
                    **{f"m{j}": 1.0 for j in range(12)},
                )
                for s in range(0, 20, 4)
            ],
            **{"hp.lr": 10.0**-i, "init_from": f"/a/long/path/to/some/data/{i}"},
        )
        for i in range(50)
    ]
    text = compare_as_text(paths, tmp_path / "c.png")
    lines = text.splitlines()
    assert sum(line.startswith("run_") for line in lines) == 100 and max(map(len, lines)) < 200
    assert lines[0].split()[:3] == ["config", "hp.lr", "init_from"] or lines[0].split()[1:3] == [
        "data.path",
        "hp.lr",
    ]
    assert any(line.startswith("and 6 more: valid m6") for line in lines), text
    size = plots.choose_figure_size(50)
    figure = plots.make_figure(plots.Drawing(lambda axes: axes.plot([1]), size))
    assert figure.get_size_inches()[0] > 10


# -- ids that files name


@pytest.mark.parametrize(
    "name",
    [
        "../../outside-0123456789ab",
        "/tmp/x-0123456789ab",
        "..",
        "a/../b-0123456789ab",
        "",
        "a\n0123456789ab",
    ],
)
def test_invalid_trial_id_is_refused_by_every_reader(tmp_path, name):
    sweep = swept(tmp_path / "s", grid.seeds(1))
    (group,) = sweep.groups_by_name()
    for path, place in (
        (group.path / "group.json", "members"),
        (sweep.path / "sweep.json", "trials"),
    ):
        before = documents.read(path)
        changed = copy.deepcopy(before)
        changed[place][0]["id"] = name
        documents.write(path, changed)
        read_group = lambda: Group(group.path).mark_crashed("why")
        for act in (sweep.read_results, read_group if place == "members" else sweep.groups):
            with pytest.raises(UserError, match="which is not a trial id"):
                act()
        documents.write(path, before)
    assert {p.name for p in tmp_path.iterdir()} == {"s"}


# -- fields of an experiment


@pytest.mark.parametrize(
    "fields, words",
    [
        ("metrc='valid/loss'", "Experiment has no field 'metrc'; did you mean 'metric'"),
        ("overides={}", "did you mean 'overrides'"),
        ("tabel=list", "did you mean 'table'"),
        ("overrides=3", r"Experiment\.overrides = 3 must be a dict"),
        ("panels='a'", "panels = 'a' must be rows and columns"),
        ("size=(0, 1)", r"size = \(0, 1\) must be inches"),
        ("metric=3", "metric = 3 must be a metric"),
        ("figure=3", "figure = 3 must be a function"),
        ("halving=3", "halving = 3 must be a Halving"),
        ("run=list", "needs exactly one of the fields sweep, search and run.* has sweep and run"),
        ("parts=('a',)", "Experiment.parts and Experiment.column must be set together"),
    ],
)
def test_invalid_field_is_a_one_line_error(tmp_path, fields, words):
    path = tmp_path / "x.py"
    path.write_text(experiment_text(f"config='configs/vae_digits.py', {fields}"))
    with pytest.raises(UserError, match=f"^experiment={path}: .*{words}"):
        experiments.load(path)


def test_file_without_experiment_is_refused(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("CONFIG = 'vae_digits'\n")
    with pytest.raises(UserError, match=r"has no EXPERIMENT = Experiment\("):
        experiments.load(path)


@pytest.mark.parametrize(
    "rungs",
    ["1 epoch", (), (True,), ("never",), ("4 steps", "4 steps"), ("4 steps", 2), 4, None, (1.5,)],
)
def test_invalid_rungs_are_a_one_line_error(rungs):
    with pytest.raises(UserError, match=r"Halving\.rungs"):
        experiments.Halving(metric="valid/loss", rungs=rungs)


@pytest.mark.parametrize("made", [None, 3, "ab", {"seed": 0}])
def test_sweep_that_yields_no_overrides_is_refused(made):
    with pytest.raises(UserError, match=r"sweep\(\) returned .* instead of"):
        experiments.list_trial_overrides(Experiment(config="x", sweep=lambda: made))

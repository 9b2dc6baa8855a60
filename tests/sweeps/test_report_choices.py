"""What table, figure and report show: statistic, error bar, baseline, experiment; and
mistakes in these choices before anything trains.
"""

import numpy as np
import pytest
import report_pages as pages
from report_pages import GRID, Page, done, refused
from runs import SHORT, every_method, train
from tiny_configs import METHODS, tiny

from aigc_jax.sweeps import grid, request, request_json, statistics
from aigc_jax.sweeps import report as sweep_reports
from aigc_jax.sweeps.experiment import load
from aigc_jax.sweeps.presentation import make_presentation
from aigc_jax.training import config as configs
from aigc_jax.training.row_names import list_row_metrics, may_have_norms
from aigc_jax.training.run_dir import RunDir

unit = pytest.mark.unit
SWEEP = ("sweep", "--config=vae_digits", "--grid=hp.beta=0.5,1", "--seeds=2", "--config.steps=2")
EXPERIMENT = "from aigc_jax.sweeps import grid\n"
EXPERIMENT += "from aigc_jax.sweeps.experiment import Experiment, Search\n"


@pytest.fixture
def sweep(tmp_path):
    return pages.finish(pages.make_sweep(tmp_path / "s", GRID), images=False)


def report_of(sweep, *flags):
    done("report", sweep.path, *flags)
    return Page(sweep.path / "report.html")


# -- mistakes before training


@unit
@pytest.mark.parametrize(
    "flag, sentence",
    [
        ("--metric=test/neg_elb", "is measured by no trial; available: valid/neg_elbo"),
        ("--metric=test/neg_elb", "did you mean 'test/neg_elbo'?"),
        ("--metric=train/neg_elbo", "is measured by no trial"),
        ("--metric=neg_elbo", "must be SPLIT/NAME, such as valid/neg_elbo"),
        ("--baseline=beta=0.25", "--baseline=beta=0.25 is no arm: beta=0.5, beta=1"),
        ("--baseline=betta=0.5", "did you mean 'beta=0.5'?"),
        ("--statistic=medain", "did you mean 'median'?"),
    ],
)
def test_mistakes_are_refused_before_a_sweep_trains(tmp_path, flag, sentence):
    refused([*SWEEP, f"--workdir={tmp_path / 's'}", flag], sentence)
    assert not (tmp_path / "s").exists()


@unit
def test_baseline_may_be_an_arm_that_the_directory_has(sweep):
    words = ["sweep", "--config=vae_digits", "--grid=hp.beta=4,8", f"--workdir={sweep.path}"]
    words += ["--config.steps=20", "--config.latent_dims=(3,)", "--dry_run"]
    refused([*words, "--baseline=beta=3"], "is no arm: beta=0.5, beta=1, beta=2, beta=4, beta=8")
    more = {"steps": 20, "latent_dims": (3,)}
    asked = request.make_request("vae_digits", None, [grid.values("hp.beta", 4.0)], 0, more)
    request.check_shown(asked, sweep, "", "beta=2")


@unit
def test_baseline_of_a_search_is_refused_by_its_key(tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "found.py").write_text(
        EXPERIMENT
        + "draw = lambda suggest: {'hp.lr': suggest.float('hp.lr', 1e-4, 1e-2)}\n"
        + "EXPERIMENT = Experiment(config='vae_digits', search=Search(draw=draw, trials=2, "
        + "batch=2, objective='valid/neg_elbo'))\n"
    )
    words = ["sweep", f"--experiment={tmp_path / 'found.py'}", f"--workdir={tmp_path / 's'}"]
    refused([*words, "--baseline=ls=0.1"], "names ls, which is not varied: lr; did you mean 'lr'?")
    refused([*words, "--metric=valid/neg_elb"], "did you mean 'valid/neg_elbo'?")
    assert not (tmp_path / "s").exists()


@unit
def test_metrics_of_further_methods_are_not_known_before():
    leaves = configs.flatten_config(tiny("vae"))
    assert list_row_metrics(leaves | dict(method="own")) is None
    assert list_row_metrics(leaves | dict(metrics=("own",))) is None
    assert may_have_norms({"run.log_norms": "network"}) and not may_have_norms({})


@every_method
def test_metrics_of_rows_are_those_known_before(tmp_path, name):
    assert name in METHODS
    config = configs.override(tiny(name), SHORT | {"metrics": tiny(name).metrics})
    train(config, tmp_path / "run")
    known = list_row_metrics(configs.flatten_config(config))
    rows = RunDir(tmp_path / "run").read_rows()
    found = {f"{r['split']}/{k}" for r in rows for k in r if k not in ("step", "split")}
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    assert found <= set(known), found - set(known)


# -- statistic, error bar and baseline of a report


@unit
def test_report_has_the_choice_of_table_md_by_default(sweep):
    view = make_presentation("median", "", "beta=1", "paper")
    sweep_reports.write_sweep_results(sweep, report=lambda text: None, view=view)
    page = report_of(sweep)
    assert "Median over n trials" in page.words and "percentile bootstrap" in page.words
    assert "The numbers are those of table.md." in page.words
    assert any(tag == "option" and "selected" in names for tag, names in page.tags)
    (chosen,) = (
        n["value"]
        for t, n in page.tags
        if t == "option" and "selected" in n and n["value"].isdigit()
    )
    assert chosen == "1"
    sweep.add_trials([], "configs/vae_digits.py")
    assert sweep.read_view() == view, "the same sweep command retains the choice"


@unit
def test_report_says_that_table_md_has_other_numbers(sweep):
    assert "table.md" not in report_of(sweep).words.split("Files:")[0]
    sweep_reports.write_sweep_results(sweep, report=lambda text: None)
    assert "The numbers are those of table.md." in report_of(sweep).words
    page = report_of(sweep, "--statistic=iqm")
    assert "Interquartile mean over n" in page.words
    assert "table.md has other numbers" in page.words and "are those of table.md" not in page.words


@unit
def test_baseline_alone_does_not_change_the_statistic(sweep):
    view = make_presentation("median")
    sweep_reports.write_sweep_results(sweep, report=lambda text: None, view=view)
    page = report_of(sweep, "--baseline=beta=2")
    assert "The numbers are those of table.md." in page.words
    hidden = [("hidden" in n) for t, n in page.tags if t == "tbody" and "data-baseline" in n]
    assert hidden == [True, True, False]
    refused(["report", sweep.path, "--baseline=beta=3"], "is no arm: beta=0.5, beta=1, beta=2")
    refused(["report", sweep.path, "--interval=s"], "--interval = 's' is none of")


@unit
@pytest.mark.parametrize("interval", [*statistics.INTERVALS, ""])
@pytest.mark.parametrize("statistic", statistics.STATISTICS)
def test_charts_have_the_statistic_and_the_error_bar_of_the_report(sweep, statistic, interval):
    if statistic != "mean" and interval not in ("", "bootstrap"):
        return
    page = report_of(sweep, f"--statistic={statistic}", f"--interval={interval}")
    view = make_presentation(statistic, interval)
    rows = [row for row in sweep.rows() if row["hp.beta"] == 0.5 and row["split"] == "valid"]
    values = np.array([[r["neg_elbo"] for r in rows if r["seed"] == seed] for seed in range(3)]).T
    (chart,) = (c for c in page.data["charts"] if c["name"] == "valid neg_elbo")
    line = chart["means"][0]
    np.testing.assert_allclose(line["y"], statistics.compute_statistic(values, statistic), 1e-5)
    ends = statistics.compute_interval(values, statistic, view.error_bar)
    np.testing.assert_allclose([line["low"], line["high"]], ends, 1e-5)
    words = dict(zip(("statistic", "bar"), view.describe(), strict=True))
    assert page.data["view"] == words | dict(symmetric=view.error_bar in ("se", "sd"))
    assert f"band: {words['bar']}" in page.words


# -- a sweep of another experiment


@unit
def test_sweep_of_another_experiment_is_refused(sweep, tmp_path):
    source = EXPERIMENT + "EXPERIMENT = Experiment(config='vae_digits', sweep=list)\n"
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text(source)
    request_json.write_request_json(sweep.path, load(tmp_path / "one.py"))
    sentence = f"{sweep.path} has the rows of the experiment one, not of --experiment=other"
    other = f"--experiment={tmp_path / 'other.py'}"
    refused(["report", sweep.path, other], sentence)
    refused(["figure", f"--workdir={sweep.path}", other], sentence)
    assert not (sweep.path / "report.html").exists() and not (sweep.path / "table.md").exists()
    done("report", sweep.path, f"--experiment={tmp_path / 'one.py'}")


@unit
def test_rows_of_another_experiment_with_its_own_function_are_refused(tmp_path):
    source = EXPERIMENT + (
        "from aigc_jax.utils import documents\n"
        "def run(workdir):\n"
        "    documents.write(workdir / 'environment.json', {'cores': 2})\n"
        "    return [dict(case='a', seed=s, step=t, loss=s + t) for s in (0, 1) for t in (0, 1)]\n"
        "EXPERIMENT = Experiment(run=run, table=str, figure=lambda rows, axes: None)\n"
    )
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text(source)
    done("sweep", f"--experiment={tmp_path / 'one.py'}", f"--workdir={tmp_path / 's'}")
    other = f"--experiment={tmp_path / 'other.py'}"
    sentence = "has the rows of the experiment one, not of --experiment=other"
    refused(["report", tmp_path / "s", other], sentence)
    refused(["figure", f"--workdir={tmp_path / 's'}", other], sentence)

"""Reports at the end of sweeps, and of sweeps of many trials."""

import json
import time

import report_pages as pages
from report_pages import Page, done

from aigc_jax.sweeps import grid
from aigc_jax.sweeps.pages import charts

LIMIT = 8_000_000  # bytes of a page


def test_sweep_writes_the_report_unless_it_is_turned_off(tmp_path):
    words = ["--config=vae_digits", "--config.steps=2", "--seeds=1", "--config.nll_samples=10"]
    out = done("sweep", *words, f"--workdir={tmp_path / 's'}")
    assert out.splitlines()[-1] == f"report: {tmp_path / 's' / 'report.html'}"
    assert (tmp_path / "s" / "report.html").is_file()
    (tmp_path / "s" / "report.html").unlink()
    out = done("sweep", *words, f"--workdir={tmp_path / 's'}", "--no_report")
    assert "report:" not in out and not (tmp_path / "s" / "report.html").exists()


def test_500_trials_with_many_samples_stay_small_and_fast(tmp_path):
    sweep = make_large_sweep(tmp_path / "s")
    begun = time.perf_counter()
    done("report", sweep.path)
    assert time.perf_counter() - begun < 20
    page = Page(sweep.path / "report.html")
    assert (sweep.path / "report.html").stat().st_size < LIMIT
    assert len(page.data["trials"]) == 500 and len(page.tables["trials"]) == 501
    assert [group["label"] for group in page.data["groups"]] == list(charts.RANKS)
    assert len({json.dumps(chart["means"]) for chart in page.data["charts"]}) == 3
    count = sum(len(steps) for steps in page.data["series"][0].values())
    assert f"{count} of 1,000 image files are in this page" in page.words


def make_large_sweep(path):
    random = grid.random(
        500, {"hp.lr": grid.loguniform(1e-5, 1e-2), "hp.beta": grid.uniform(0.1, 4)}
    )
    return pages.finish(pages.make_sweep(path, random), steps=tuple(range(0, 100, 5)))


EXPERIMENT = """
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.utils import documents


def run(workdir):
    documents.write(workdir / "environment.json", {"cores": 2})
    return [dict(case="a", seed=s, step=t, loss=s + t) for s in range(2) for t in range(3)]


EXPERIMENT = Experiment(
    run=run, table=lambda rows: "| rows |\\n|---|\\n| 6 |\\n", figure=lambda rows, axes: None
)
"""


def test_experiment_with_its_own_function_ends_with_a_report(tmp_path):
    (tmp_path / "own.py").write_text(EXPERIMENT)
    words = [f"--experiment={tmp_path / 'own.py'}", f"--workdir={tmp_path / 's'}"]
    assert "report: " in done("sweep", *words)
    page = Page(tmp_path / "s" / "report.html")
    assert page.tables["own"] == [["rows"], ["6"]] and len(page.data["trials"]) == 2
    assert [chart["name"] for chart in page.data["charts"]] == ["loss"]

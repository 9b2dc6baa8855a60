"""`figure` writes beside the rows or into --out, never into an installed package."""

import pytest
from helpers import ROOT, experiment_text

from aigc_jax.cli import figure
from aigc_jax.cli import main as cli

WRITTEN = ("table.md", "figure.png", "figure.pdf", "figure.csv")
EXPERIMENT = """
from aigc_jax.sweeps.experiment import Experiment

def table(rows):
    return f"{len(rows)} rows\\n"

def figure(rows, axes):
    axes.plot([row["loss"] for row in rows])

EXPERIMENT = Experiment(run=list, table=table, figure=figure)
"""


@pytest.fixture
def experiment(tmp_path):
    """An experiment with committed rows, outside the package."""
    results = tmp_path / "own" / "results" / "question"
    results.mkdir(parents=True)
    (results / "rows.csv").write_text("trial,step,split,loss\na,4,valid,2.0\n")
    file = tmp_path / "own" / "question.py"
    file.write_text(EXPERIMENT)
    return file


def files(folder) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_figure_is_written_beside_committed_rows(experiment, capsys):
    assert cli.main(["figure", f"--experiment={experiment}"]) == 0
    results = experiment.parent / "results" / "question"
    assert files(results) == {"rows.csv", *WRITTEN}
    assert capsys.readouterr().out == f"1 rows\nfigure: {results / 'figure.png'}\n"


def test_out_is_the_only_directory_written(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files(experiment.parent)
    assert cli.main(["figure", f"--experiment={experiment}", "--out=made/here"]) == 0
    assert files(tmp_path / "made") == {f"here/{name}" for name in WRITTEN}
    assert files(experiment.parent) == before


def test_file_as_out_is_a_one_line_error(experiment, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["figure", f"--experiment={experiment}", f"--out={tmp_path / 'file'}"]) == 1
    err = capsys.readouterr().err
    assert "cannot write to" in err and len(err.splitlines()) == 1


def test_installed_experiments_are_printed_and_not_written(experiment, monkeypatch, capsys):
    monkeypatch.setattr(figure, "SHIPPED", experiment.parent.resolve())
    before = files(experiment.parent)
    assert cli.main(["figure", f"--experiment={experiment}"]) == 0
    assert files(experiment.parent) == before
    assert capsys.readouterr().out.splitlines()[0] == "1 rows"
    words = ["figure", f"--experiment={experiment}", "--workdir=anything", "--commit"]
    assert cli.main(words) == 1
    assert "part of the installed package" in capsys.readouterr().err
    assert files(experiment.parent) == before


def test_external_experiment_can_name_a_shipped_config(tmp_path):
    from aigc_jax.sweeps import experiment as experiments
    from aigc_jax.training import config_files

    file = tmp_path / "folder" / "mine.py"
    file.parent.mkdir()
    file.write_text(experiment_text("config='vae_digits', overrides={'steps': 8}"))
    made = experiments.load_base_config(experiments.load(file))
    shipped = config_files.load(ROOT / "configs" / "vae_digits.py")
    assert made.steps == "8" and made.model == shipped.model
    # A path is relative to the parent of the experiment's folder.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "x.py").write_text((ROOT / "configs/gan_digits.py").read_text())
    file.write_text(experiment_text("config='configs/x.py'"))
    assert experiments.load_base_config(experiments.load(file)).method == "gan"

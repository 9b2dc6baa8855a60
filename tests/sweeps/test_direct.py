"""Experiments that train by a function of their own, through the launcher."""

import pytest
from helpers import ROOT
from tiny_configs import SMALL_RUN, VAE

from aigc_jax.cli import main as cli
from aigc_jax.sweeps.evidence import read_rows

EXPERIMENT = """
from pathlib import Path
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.sweeps.experiment import Experiment
from aigc_jax.training.run_dir import RunDir
from aigc_jax.training.train import train_configs

CALLS = Path(__file__).with_name("calls")

def run(part, workdir):
    config = configs.override(config_files.load({config!r}), {changes!r} | dict(steps=int(part)))
    train_configs([config], [workdir / part])
    with open(CALLS, "a") as f:
        f.write(part + " ")
    return [dict(part=part, value=row["neg_elbo"]) for row in RunDir(workdir / part).read_rows()
            if row["split"] == "test"]

def table(rows):
    return "".join(f"{{row['part']}}: {{row['value']:.2f}}\\n" for row in rows)

EXPERIMENT = Experiment(
    run=run, parts=("2", "4"), column="part", table=table,
    figure=lambda rows, axes: axes.plot([row["value"] for row in rows]),
)
"""

FIGURES = ("figure.png", "figure.pdf", "figure.csv")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "steps.py"
    changes = SMALL_RUN | VAE | {"metrics": ()}
    file.write_text(EXPERIMENT.format(config=str(ROOT / "configs/vae_digits.py"), changes=changes))
    return file


def test_parts_train_separately_and_are_plotted_and_committed_together(
    experiment, tmp_path, capsys
):
    workdir, results = tmp_path / "work", experiment.parent / "results" / "steps"
    sweep = ["sweep", f"--experiment={experiment}", f"--workdir={workdir}"]
    assert cli.main([*sweep, "--only=4"]) == 0
    assert "no table and figure yet: no rows of 2" in capsys.readouterr().out
    assert [row["part"] for row in read_rows(workdir)] == [4]
    assert not (workdir / "table.md").exists()
    assert cli.main([*sweep, "--only=2"]) == 0
    assert [row["part"] for row in read_rows(workdir)] == [4, 2]
    assert len((workdir / "table.md").read_text().splitlines()) == 2
    assert (workdir / "figure.png").is_file()
    before = (workdir / "2" / "rows.jsonl").read_bytes()
    assert cli.main(sweep) == 0  # nothing is trained again, and rows are replaced
    assert [row["part"] for row in read_rows(workdir)] == [2, 4]
    assert (workdir / "2" / "rows.jsonl").read_bytes() == before
    assert experiment.with_name("calls").read_text().split() == ["4", "2", "2", "4"]

    figure = ["figure", f"--experiment={experiment}"]
    assert cli.main([*figure, f"--workdir={workdir}", "--commit"]) == 0
    committed = {path.name: path.read_bytes() for path in results.iterdir()}
    assert set(committed) == {"rows.csv", "environment.json", "table.md", *FIGURES}
    assert cli.main(figure) == 0
    assert {path.name: path.read_bytes() for path in results.iterdir()} == committed


@pytest.mark.parametrize(
    "words, error",
    [
        (["--only=3"], "--only = '3' is none of 2, 4"),
        (["--config.latent_dim=3"], "--config is not read by"),
        (["--dry_run"], "--dry_run is not read by"),
    ],
)
def test_flags_without_effect_are_refused(experiment, tmp_path, capsys, words, error):
    assert cli.main(["sweep", f"--experiment={experiment}", f"--workdir={tmp_path}", *words]) == 1
    assert error in capsys.readouterr().err

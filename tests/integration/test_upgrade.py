"""Runs and a sweep of commit 3be723d, whose files had no format version: a one-line
error names the alternatives, and no file changes.

tests/fixtures/made_by_3be723d.tar.xz contains `finished`, a run of 8 steps; `half`, a
run killed during the save of step 12; `sweep`, a sweep of two learning rates.
"""

import tarfile

import pytest
from helpers import ROOT

from aigc_jax.cli import main as cli
from aigc_jax.sweeps.engines.base import EXIT_REFUSED

VAE = f"--config={ROOT / 'configs' / 'vae_digits.py'}"
TINY = [
    "--config.model.widths=((6,),)",
    "--config.latent_dims=(2,)",
    "--config.nll_samples=5",
    "--config.batch_size=16",
    "--config.num_metric_samples=32",
    "--config.run.log_every=2",
    "--config.run.eval_every=4",
    "--config.run.sample_every=never",
    "--config.run.save_every=4",
    "--config.run.samples=4",
    "--config.run.log=()",
    "--config.run.mesh.data=1",
]


@pytest.fixture
def old(tmp_path):
    with tarfile.open(ROOT / "tests" / "fixtures" / "made_by_3be723d.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python >= 3.11.4
        archive.extractall(tmp_path)
    return tmp_path


def contents(path):
    return {
        p.relative_to(path): p.read_bytes()
        for p in path.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--workdir=half"],
        ["train", VAE, *TINY, "--config.steps=40000", "--workdir=half"],
        ["train", "--workdir=finished", "--extend=12"],
        ["evaluate", "--workdir=finished"],
        ["sample", "--workdir=finished", "--out=a.npy"],
        ["sample", "--workdir=half", "--out=a.npy"],
        ["compare", "finished", "half", "--out=a.png"],
        ["evaluate", "--workdir=sweep/trials/lr=0.001-16e9bc7d6c0a"],
        ["sweep", VAE, *TINY, "--config.steps=4", "--grid", "hp.lr=1e-3,1e-2", "--workdir=sweep"],
        ["status", "sweep"],
        ["figure", "--workdir=sweep"],
        ["group", "--workdir=sweep/groups/633f3f072d40"],
        ["train", VAE, *TINY, "--config.steps=4", "--config.init_from=finished", "--workdir=new"],
    ],
    ids=lambda words: " ".join(w.split("/")[-1] for w in words if "config." not in w),
)
def test_runs_of_an_earlier_version_are_refused_by_a_one_line_error(
    old, monkeypatch, capsys, words
):
    monkeypatch.chdir(old)
    before = contents(old)
    assert cli.main(words) == (EXIT_REFUSED if words[0] == "group" else 1)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and len(err.splitlines()) == 1, err
    assert (
        "written by an earlier version of aigc_jax" in err
        and "in another --workdir, or in a run's own with " in err
        and " train --config=FILE --restart" in err
    )
    assert contents(old) == before


def test_restart_trains_a_run_of_an_earlier_version_anew(old, monkeypatch, capsys):
    monkeypatch.chdir(old)
    assert (
        cli.main(["train", VAE, *TINY, "--config.steps=8", "--workdir=finished", "--restart"]) == 0
    )
    assert cli.main(["evaluate", "--workdir=finished"]) == 0
    assert "neg_elbo" in capsys.readouterr().out
    assert not (old / "finished" / "samples" / "step_00000004.png").exists()

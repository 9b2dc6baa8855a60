"""Committed evidence: tables are what the rows say, and the rows bear the claims out."""

import importlib.util

import pytest
from conftest import ROOT


def experiment(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_gan_of_digits_is_first_behind_and_then_ahead_of_one_from_scratch():
    it = experiment("fashion_from_digits")
    rows = it.read()
    assert (it.RESULTS / "table.md").read_text() == it.table(rows)
    scratch, adapted = it.curves(rows).values()
    assert sorted(scratch.keys() & adapted.keys()) == [0, 100, 200, 300, 400]
    assert adapted[100] > scratch[100] and adapted[300] < scratch[300] and adapted[400] < scratch[400]


def test_the_table_says_when_scratch_is_as_good():
    it = experiment("fashion_from_digits")
    rows = [dict(run=run, step=step, frechet_pixels=value) for run, curve in
            dict(scratch={0: 9.0, 10: 5.0, 20: 3.0}, adapted={0: 8.0, 10: 3.0, 20: 2.0}).items() for step, value in curve.items()]
    assert it.table(rows).splitlines()[2:] == ["| 0 | 9.0 | 8.0 | 10 |", "| 10 | 5.0 | 3.0 | 20 |", "| 20 | 3.0 | 2.0 | never in 20 |"]


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_every_experiment_has_its_evidence(path):
    results = ROOT / "experiments" / "results" / path.stem
    assert {p.name for p in results.iterdir()} == {"rows.csv", "table.md", "figure.png", "environment.json"}

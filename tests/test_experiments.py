"""Committed evidence: tables are what the rows say, and the rows bear the claims out."""

import importlib.util

import pytest
from conftest import ROOT

from aigc_jax.evidence import read_rows


def experiment(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_generator_of_digits_learns_clothes_sooner_than_one_from_scratch_and_both_networks_are_lost():
    it = experiment("fashion_from_digits")
    rows = read_rows(it.RESULTS)
    assert (it.RESULTS / "table.md").read_text() == it.table(rows)
    scratch, both, generator = it.curves(rows).values()
    assert sorted(both) == sorted(generator) == [0, 100, 200, 300, 400] and both[0] == generator[0]
    assert all(generator[step] < scratch[min(step + 100, 400)] for step in (100, 200, 300, 400))
    assert generator[200] < scratch[300] and generator[300] < scratch[500] and generator[400] < scratch[600]
    assert all(both[step] > 600 for step in (100, 200, 300, 400))


def test_the_table_says_when_scratch_is_as_good():
    it = experiment("fashion_from_digits")
    rows = [dict(run=run, step=step, frechet_pixels=value) for run, curve in
            dict(scratch={0: 9.0, 10: 5.0, 20: 3.0}, both={0: 7.0, 10: 1.0, 20: 4.0}, generator={0: 8.0, 10: 3.0, 20: 2.0}).items()
            for step, value in curve.items()]  # fmt: skip
    assert it.table(rows).splitlines()[2:] == [
        "| 0 | 9.0 | 7.0 | 8.0 | 10 |", "| 10 | 5.0 | 1.0 | 3.0 | 20 |", "| 20 | 3.0 | 4.0 | 2.0 | never in 20 |"]  # fmt: skip


def test_five_seeds_of_a_vae_end_at_the_elbo_of_flax():
    it = experiment("vae_mnist")
    rows = read_rows(it.RESULTS)
    assert (it.RESULTS / "table.md").read_text() == it.table(rows)
    values = it.final(rows)
    assert len(values) == it.SEEDS == len(set(values)) and values.mean() <= it.REFERENCE
    assert {row["step"] for row in rows if row["split"] == "test"} == {3907}  # ten epochs of 50,000 pictures, 128 a step


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_every_experiment_has_its_evidence(path):
    results = ROOT / "experiments" / "results" / path.stem
    assert {p.name for p in results.iterdir()} == {"rows.csv", "table.md", "figure.png", "environment.json"}

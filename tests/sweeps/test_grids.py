"""Grids, and how their overrides become trials and groups."""

import numpy as np
import pytest
from runs import make_sweep
from tiny_configs import tiny

from aigc_jax.sweeps import grid
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.sweeps.trials import group_trials, make_trial_slug, make_trials
from aigc_jax.utils.errors import UserError

pytestmark = pytest.mark.unit

# -- grids


def test_products_pairs_chains_and_seeds():
    rates, betas = grid.values("hp.lr", 1e-4, 1e-3), grid.values("hp.beta", 1.0, 4.0)
    assert grid.product(rates, grid.seeds(2)) == [
        {"hp.lr": lr, "seed": s} for lr in (1e-4, 1e-3) for s in (0, 1)
    ]
    assert grid.zipped(rates, betas) == [
        {"hp.lr": 1e-4, "hp.beta": 1.0},
        {"hp.lr": 1e-3, "hp.beta": 4.0},
    ]
    assert grid.chain(rates, betas) == rates + betas and grid.product() == [{}]
    with pytest.raises(UserError, match="one length, not 2, 3"):
        grid.zipped(rates, grid.seeds(3))


def test_random_draws_are_in_range_and_independent_of_their_number():
    draws = {
        "hp.lr": grid.loguniform(1e-5, 1e-2),
        "hp.beta": grid.uniform(0.5, 4),
        "optimizer": grid.choice("adam", "sgd"),
    }
    many = grid.random(400, draws, seed=1)
    assert grid.random(7, draws, seed=1) == many[:7] != grid.random(7, draws, seed=2)
    logs = np.log10([d["hp.lr"] for d in many])
    assert logs.min() >= -5 and logs.max() <= -2 and abs(logs.mean() + 3.5) < 0.15
    assert all(0.5 <= d["hp.beta"] <= 4 for d in many) and {d["optimizer"] for d in many} == {
        "adam",
        "sgd",
    }


@pytest.mark.parametrize("text", ["hp.lr", "hp.lr=", "=1", "hp.lr=1,,2"])
def test_invalid_grid_is_a_user_error(text):
    with pytest.raises(UserError, match="^grid=" + text.replace(".", r"\.")):
        grid.parse_grid(text)


# -- trials and groups


@pytest.mark.parametrize(
    "overrides, words",
    [
        ([{"hp.lrr": 1}], r"config\.hp\.lrr: no such key of .*; did you mean 'hp\.lr'"),
        ([{"seed": 1}, {"seed": 1}], "trials 0 and 1 of the sweep are the same"),
        (
            [{"steps": 40}, {"seed": 1}, {"steps": "40 steps"}],
            "trials 0 and 2 of the sweep are the same",
        ),
        ([{"hp.lr": 1}, {"hp.lr": 1.0}], "trials 0 and 1 of the sweep are the same"),
        (
            [{"steps": 40}, {"steps": "2 epochs"}],
            r"trials 0 and 1 of the sweep differ in config\.steps alone, 40 and '2\.0 "
            r"epochs', .* use one unit for both",
        ),
        ([{"seed": 2**32}], r"config\.seed = 4294967296 must be at most 4,294,967,295"),
        (
            [{"data.size": 32}],
            r"config\.data\.size = 32 is not read by config\.data\.name = 'digits'",
        ),
        ([{"seed": 0}, {}], "trials 0 and 1"),
        ([], "has no trial"),
        ([3], "trial 0 of the sweep is 3"),
        ([{"steps": "soon"}], "is not a duration"),
    ],
)
def test_invalid_sweep_fails_before_any_job_starts(tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        make_sweep(tmp_path, overrides)
    assert not any(tmp_path.iterdir())


def test_trials_with_equal_static_keys_form_a_group():
    trials = make_trials(
        tiny("vae"),
        grid.product(
            grid.values("latent_dims", (3,), (4,)), grid.values("hp.lr", 1e-3, 1e-2), grid.seeds(2)
        ),
    )
    assert [len(members) for members in group_trials(trials)] == [4, 4]
    assert {t.config.latent_dims for t in group_trials(trials)[1]} == {(4,)} and len(
        {t.id for t in trials}
    ) == 8
    assert (
        make_trial_slug({"hp.lr": 1e-3, "seed": 3, "latent_dims": (3, 4)})
        == "lr=0.001,seed=3,latent_dims=_3,_4"
    )
    assert all(
        "/" not in t.id and t.id.isprintable()
        for t in make_trials(tiny("vae"), [{"data.name": "npz", "data.path": "../a b/é"}])
    )


def test_extended_sweep_does_not_change_existing_groups(tmp_path):
    make_sweep(tmp_path, grid.seeds(2))
    before = {g.name: g.members for g in Sweep(tmp_path).groups()}
    it = make_sweep(tmp_path, grid.seeds(4))
    assert len(it.groups()) == 2 and [g.members for g in it.groups() if g.name in before] == list(
        before.values()
    )
    assert [t["overrides"]["seed"] for t in it.read_sweep_json()["trials"]] == [0, 1, 2, 3]

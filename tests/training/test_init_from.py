"""Parameters of another run must match, unless config.init_match excludes them."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from aigc_jax.core.method import TrainState
from aigc_jax.training import init_from
from aigc_jax.utils.errors import UserError

THERE = {
    "params/net/layer_0/kernel": (3, 4),
    "params/net/layer_0/bias": (4,),
    "params/net/layer_1/kernel": (4, 4),
    "params/net/head/kernel": (4, 2),
    "extra/carry/0": (16, 4),
    "opt/net/0/mu/head/kernel": (4, 2),
    "step": (),
}


def state_of(shapes) -> TrainState:
    """Returns the state of two trials, of zeros."""
    params = {}
    for name, shape in shapes.items():
        part, layer, leaf = name.split("/")
        params.setdefault(part, {}).setdefault(layer, {})[leaf] = np.zeros((2, *shape), np.float32)
    return TrainState(np.zeros(2), np.zeros(2), params, {}, {}, {})


def begun(monkeypatch, shapes, match=".*", there=THERE):
    """Returns the parameters and the report of a run of these shapes, initialized from
    a checkpoint of ones with the shapes of `there`.
    """
    monkeypatch.setattr(
        init_from,
        "read_source_leaves",
        lambda where, states: {k: np.ones((1, *shape)) for k, shape in there.items()},
    )
    lines = []
    states = init_from.warm_start_states(
        state_of(shapes),
        ConfigDict(dict(init_from="runs/a", init_match=match)),
        report=lines.append,
    )
    (line,) = lines
    return states.params, line


SAME = {
    "net/layer_0/kernel": (3, 4),
    "net/layer_0/bias": (4,),
    "net/layer_1/kernel": (4, 4),
    "net/head/kernel": (4, 2),
}


def without(*names):
    return {name: shape for name, shape in SAME.items() if name not in names}


def test_matching_parameters_are_copied_to_every_trial(monkeypatch):
    params, line = begun(monkeypatch, SAME)
    assert all(
        (leaf == 1).all() and len(leaf) == 2
        for layer in params["net"].values()
        for leaf in layer.values()
    )
    assert line == "4 arrays initialized from runs/a"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (without("net/layer_1/kernel"), "this run: params/net/layer_1/kernel unexpected;"),
        (without("net/layer_0/bias"), "this run: params/net/layer_0/bias unexpected;"),
        (SAME | {"net/layer_2/kernel": (4, 4)}, "this run: params/net/layer_2/kernel missing;"),
        (
            SAME | {"net/head/kernel": (4, 5)},
            "this run: params/net/head/kernel has the shape (4, 2) instead of (4, 5);",
        ),
        (
            without("net/layer_0/bias") | {"net/head/bias": (2,), "net/head/kernel": (4, 5)},
            "params/net/head/bias missing; params/net/layer_0/bias unexpected; "
            "params/net/head/kernel has the shape (4, 2) instead of (4, 5);",
        ),
    ],
)
def test_all_parameter_mismatches_are_listed_in_one_error(monkeypatch, shapes, words):
    with pytest.raises(UserError) as e:
        begun(monkeypatch, shapes)
    assert (
        words in str(e.value) and "config.init_match" in str(e.value) and "\n" not in str(e.value)
    )


def test_parameters_outside_init_match_may_differ_and_are_reported(monkeypatch):
    other = without("net/layer_1/kernel") | {"net/head/kernel": (4, 5)}
    params, line = begun(monkeypatch, other, "params/net/layer_0")
    assert (params["net"]["layer_0"]["kernel"] == 1).all() and (
        params["net"]["head"]["kernel"] == 0
    ).all()
    assert (
        line
        == "2 arrays initialized from runs/a; not params/net/head/kernel, params/net/layer_1/kernel"
    )


def test_new_lora_parameters_are_allowed_and_stored_ones_not_dropped(monkeypatch):
    adaptation = {"lora/layer_0/a": (3, 2)}
    params, line = begun(monkeypatch, SAME | adaptation)
    assert (params["lora"]["layer_0"]["a"] == 0).all() and (
        params["net"]["head"]["kernel"] == 1
    ).all()
    assert line == "4 arrays initialized from runs/a; not params/lora/layer_0/a"
    with pytest.raises(UserError, match="holds a low-rank adaptation"):
        begun(monkeypatch, SAME, there=THERE | {"params/lora/layer_0/a": (3, 2)})

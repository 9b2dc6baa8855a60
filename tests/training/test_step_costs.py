"""What a training step costs, counted by XLA: as much within the training loop as
outside of it, and in the cases of benchmarks/ no more than recorded.
"""

import jaxlib
import pytest
import step_costs
from helpers import bound_memory
from tiny_configs import METHODS, dataset, resolved, tiny

from aigc_jax.training.programs import Programs

SLOW = pytest.mark.slow
FAST = {("gan", 1), ("gan_conv", 1), ("gan", 3)}
DREG = dict(objective="dreg", num_importance_samples=4)
STEPS = {name: (name, {}) for name in METHODS} | {
    "gan_conv_both": ("gan_conv", dict(model__g__norm="batch", model__d__norm="batch")),
    "gan_unrolled": ("gan", dict(gan__unroll=2)),
    "gan_mode_seeking": ("gan", dict(gan__regularizers=("mode_seeking",))),
    "vae_dreg": ("vae", DREG),
}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param(name, count, marks=[SLOW] * ((name, count) not in FAST))
        for name in STEPS
        for count in (1, 3)
    ],
)
def test_step_in_the_loop_has_the_flops_of_the_step_alone(name, count):
    """XLA merges what is computed twice outside of loops only: a step must not rely on
    it.
    """
    method, overrides = STEPS[name]
    config = tiny(method, **overrides)
    programs = Programs(resolved(config), dataset(config), count)
    inside, outside = (
        step_costs.count_costs(compiled(programs))["flops"]
        for compiled in (step_costs.compile_loop, step_costs.compile_step)
    )
    assert inside == pytest.approx(outside, rel=0.01)


def recorded_by_this_xla():
    """The recorded counts; the test is skipped if they are those of another XLA."""
    recorded = step_costs.recorded()
    if jaxlib.__version__ != recorded["jaxlib"]:
        pytest.skip(
            f"the counts depend on XLA: recorded with jaxlib {recorded['jaxlib']}, and this is "
            f"{jaxlib.__version__}"
        )
    return recorded


QUICK_CASES = ("dcgan_28_batch_norm", "gan_mlp", "vae", "gpt")


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK_CASES else pytest.param(case, marks=SLOW) for case in step_costs.CASES],
)
def test_costs_of_a_step_grow_by_no_more_than_a_hundredth(case):
    """`python tests/step_costs.py` records a change of them."""
    costs = recorded_by_this_xla()["cases"][case]
    bound_memory()
    found = step_costs.count_costs(step_costs.compile_loop(step_costs.programs_of(case)))
    assert found.keys() == costs.keys()
    grown = {n: (costs[n], count) for n, count in found.items() if count > 1.01 * costs[n]}
    assert not grown, f"recorded and found: {grown}"


@pytest.mark.parametrize(
    "name",
    [
        name if name == "gan" else pytest.param(name, marks=SLOW)
        for name in step_costs.recorded()["compilations"]
    ],
)
def test_training_compiles_no_more_programs_than_recorded(name):
    assert step_costs.count_compilations(name) <= recorded_by_this_xla()["compilations"][name]

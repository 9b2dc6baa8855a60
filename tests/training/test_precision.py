"""Policies of precision: what is narrow, what never is, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import close, trained
from tiny_configs import dataset, methods_of, resolved, tiny

from aigc_jax import methods
from aigc_jax.core.trees import widen
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import working
from aigc_jax.training.serialization import flatten
from aigc_jax.utils.errors import UserError


def kinds(tree):
    return {x.dtype.name for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


@methods_of("lm")
def test_networks_compute_in_bfloat16_and_nothing_else_does(name):
    config = tiny(name, precision="bfloat16")
    programs, states, metrics = trained(config, [config])
    assert kinds((states.params, states.opt, states.hp)) == {"float32"}
    assert {v.dtype.name for v in metrics.values()} == {"float32"} and all(
        np.isfinite(v).all() for v in metrics.values()
    )
    whole = trained(tiny(name), [tiny(name)])[2]
    # the same weights, noise and examples: the first step differs by rounding
    for key, value in metrics.items():
        assert value[0, 0] == pytest.approx(whole[key][0, 0], rel=0.02, abs=0.02), key
    assert any((value != whole[key]).any() for key, value in metrics.items())


@methods_of("lm")
def test_all_of_a_state_can_lie_in_bfloat16(name):
    config = tiny(name, precision="bfloat16_all")
    programs, states, metrics = trained(config, [config])
    assert kinds((states.params, states.opt)) == {"bfloat16"} and kinds(states.hp) == {"float32"}
    assert all(np.isfinite(v).all() for v in metrics.values())
    values = programs.evaluate(states, "valid", 16)[0]
    assert all(np.isfinite(v) for v in values.values())


def test_moments_in_bfloat16_are_half_as_large_and_step_nearly_alike():
    config = tiny("lm", moments="bfloat16")
    _, states, metrics = trained(config, [config])
    assert kinds(states.params) == {"float32"} and kinds(states.opt) == {"bfloat16"}
    np.testing.assert_allclose(
        metrics["loss"], trained(tiny("lm"), [tiny("lm")])[2]["loss"], rtol=2e-3
    )


def test_an_optimiser_with_narrow_state_works_in_float32():
    """One step of Adam from zero moments is the sign of the gradient, whatever the
    moments are kept in; a second one from rounded moments.
    """
    rule, params, grads = (
        optax.adam(0.1),
        {"a": jnp.ones(5)},
        {"a": jnp.array([1e-3, -2.0, 3e4, 1e-6, -0.5])},
    )
    plain, narrow = (optimizers.stored(rule, dtype) for dtype in (None, jnp.bfloat16))
    a, b = plain.init(params), narrow.init(params)
    for _ in range(2):
        (up, a), (vp, b) = plain.update(grads, a, params), narrow.update(grads, b, params)
        np.testing.assert_allclose(vp["a"], up["a"], rtol=5e-3)
    assert vp["a"].dtype == jnp.float32 and kinds(b) == {"bfloat16"}


def test_what_leaves_a_network_is_widened_and_nothing_is_narrowed():
    tree = dict(a=jnp.ones(2, jnp.bfloat16), b=jnp.ones(2, jnp.float32), c=jnp.ones(2, jnp.int32))
    assert {k: v.dtype.name for k, v in widen(tree).items()} == dict(
        a="float32", b="float32", c="int32"
    )
    assert working(tiny("vae", precision="bfloat16")) == working(tiny("vae")) == jnp.float32
    for key, value in (("precision", "bfloat61"), ("moments", "bfloat61")):
        with pytest.raises(
            UserError, match=f"config.{key} = 'bfloat61' is none of .*did you mean 'bfloat16'"
        ):
            tiny("vae", **{key: value})


def test_logits_in_chunks_are_the_whole_ones_in_less_memory():
    """In value, in the gradient and in evaluation; with a vocabulary that dwarfs the
    rest, in a part of the memory.
    """
    with jax.enable_x64(True):
        ends = []
        for chunk in (0, 4):
            config = tiny("lm", precision="float64", loss_chunk=chunk, model__dropout=0.0)
            programs, states, metrics = trained(config, [config], (2,))
            ends.append(
                flatten(states)
                | metrics
                | {k: np.array(v) for k, v in programs.evaluate(states, "valid", 16)[0].items()}
            )
        close(*ends, 1e-9)
    x, table, target = jnp.ones((8, 64, 4)), jnp.ones((4, 5000)), jnp.zeros((8, 64), jnp.int32)

    def memory(chunk):
        def total(table):
            score = lambda x, target: token_losses.cross_entropy(x @ table, target, 0.0, 5000)
            return token_losses.in_chunks(score, x, target, chunk).sum()

        return jax.jit(jax.grad(total)).lower(table).compile().memory_analysis().temp_size_in_bytes

    assert memory(2) < memory(64) / 8
    for change, words in (
        (dict(loss_chunk=5), "config.loss_chunk = 5 does not divide"),
        (dict(loss_chunk=-1), "config.loss_chunk = -1"),
    ):
        with pytest.raises(UserError, match=words):
            config = tiny("lm", **change)
            methods.make(resolved(config), dataset(config).spec)
    config = tiny("lm_stream", loss_chunk=4)
    with pytest.raises(UserError, match="config.loss_chunk is for config.network = 'transformer'"):
        methods.make(resolved(config), dataset(config).spec)

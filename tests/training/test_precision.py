"""Precision policies: which values are in bfloat16, and their accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import close, train_steps
from tiny_configs import dataset, methods_of, resolved, tiny

from aigc_jax import methods
from aigc_jax.core.trees import upcast_to_float32
from aigc_jax.methods import optimizers
from aigc_jax.methods.losses import tokens as token_losses
from aigc_jax.methods.networks import loss_dtype
from aigc_jax.training.evaluation import Evaluator
from aigc_jax.training.serialization import flatten_state
from aigc_jax.utils.errors import UserError


def kinds(tree):
    return {x.dtype.name for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


@methods_of("lm")
def test_bfloat16_leaves_params_optimizer_and_metrics_in_float32(name):
    config = tiny(name, precision="bfloat16")
    programs, states, metrics = train_steps(config, [config])
    assert kinds((states.params, states.opt, states.hp)) == {"float32"}
    assert {v.dtype.name for v in metrics.values()} == {"float32"} and all(
        np.isfinite(v).all() for v in metrics.values()
    )
    whole = train_steps(tiny(name), [tiny(name)])[2]
    # the same weights, noise and batch: the first step differs by rounding
    for key, value in metrics.items():
        assert value[0, 0] == pytest.approx(whole[key][0, 0], rel=0.02, abs=0.02), key
    assert any((value != whole[key]).any() for key, value in metrics.items())


@methods_of("lm")
def test_bfloat16_all_stores_params_and_optimizer_in_bfloat16(name):
    config = tiny(name, precision="bfloat16_all")
    programs, states, metrics = train_steps(config, [config])
    assert kinds((states.params, states.opt)) == {"bfloat16"} and kinds(states.hp) == {"float32"}
    assert all(np.isfinite(v).all() for v in metrics.values())
    values = Evaluator(programs).evaluate(states, "valid", 16)[0]
    assert all(np.isfinite(v) for v in values.values())


def test_bfloat16_moments_train_like_float32_moments():
    config = tiny("lm", optimizer_dtype="bfloat16")
    _, states, metrics = train_steps(config, [config])
    assert kinds(states.params) == {"float32"} and kinds(states.opt) == {"bfloat16"}
    np.testing.assert_allclose(
        metrics["loss"], train_steps(tiny("lm"), [tiny("lm")])[2]["loss"], rtol=2e-3
    )


def test_optimizer_with_bfloat16_state_computes_in_float32():
    """One step of Adam from zero moments is the sign of the gradient in any dtype of
    the moments; the second step starts from rounded moments.
    """
    rule, params, grads = (
        optax.adam(0.1),
        {"a": jnp.ones(5)},
        {"a": jnp.array([1e-3, -2.0, 3e4, 1e-6, -0.5])},
    )
    plain, narrow = (optimizers.with_state_dtype(rule, dtype) for dtype in (None, jnp.bfloat16))
    a, b = plain.init(params), narrow.init(params)
    for _ in range(2):
        (up, a), (vp, b) = plain.update(grads, a, params), narrow.update(grads, b, params)
        np.testing.assert_allclose(vp["a"], up["a"], rtol=5e-3)
    assert vp["a"].dtype == jnp.float32 and kinds(b) == {"bfloat16"}


def test_to_float32_widens_bfloat16_only():
    tree = dict(a=jnp.ones(2, jnp.bfloat16), b=jnp.ones(2, jnp.float32), c=jnp.ones(2, jnp.int32))
    assert {k: v.dtype.name for k, v in upcast_to_float32(tree).items()} == dict(
        a="float32", b="float32", c="int32"
    )
    assert loss_dtype(tiny("vae", precision="bfloat16")) == loss_dtype(tiny("vae")) == jnp.float32
    for key, value in (("precision", "bfloat61"), ("optimizer_dtype", "bfloat61")):
        with pytest.raises(
            UserError, match=f"config.{key} = 'bfloat61' is none of .*did you mean 'bfloat16'"
        ):
            tiny("vae", **{key: value})


def test_chunked_loss_equals_unchunked_in_less_memory():
    """Values, gradients and evaluation are equal. With a large vocabulary, chunks
    reduce the temporary memory.
    """
    with jax.enable_x64(True):
        ends = []
        for chunk in (0, 4):
            config = tiny("lm", precision="float64", loss_chunk=chunk, model__dropout=0.0)
            programs, states, metrics = train_steps(config, [config], (2,))
            (row,) = Evaluator(programs).evaluate(states, "valid", 16)
            row = {name: np.array(value) for name, value in row.items()}
            ends.append(flatten_state(states) | metrics | row)
        close(*ends, 1e-9)
    x, table, target = jnp.ones((8, 64, 4)), jnp.ones((4, 5000)), jnp.zeros((8, 64), jnp.int32)

    def memory(chunk):
        def loss(table):
            score = lambda x, target: token_losses.cross_entropy(x @ table, target, 0.0, 5000)
            return token_losses.score_in_chunks(score, x, target, chunk).sum()

        return jax.jit(jax.grad(loss)).lower(table).compile().memory_analysis().temp_size_in_bytes

    assert memory(2) < memory(64) / 8
    for change, words in (
        (dict(loss_chunk=5), "config.loss_chunk = 5 does not divide"),
        (dict(loss_chunk=-1), "config.loss_chunk = -1"),
    ):
        with pytest.raises(UserError, match=words):
            config = tiny("lm", **change)
            methods.make_method(resolved(config), dataset(config).spec)
    config = tiny("lm_stream", loss_chunk=4)
    with pytest.raises(UserError, match="config.loss_chunk is for config.network = 'transformer'"):
        methods.make_method(resolved(config), dataset(config).spec)

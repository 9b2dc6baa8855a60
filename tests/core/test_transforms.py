"""Steps, evaluations and losses are traced once per compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.core import transforms
from aigc_jax.core.gradients import mean_gradients


@pytest.fixture
def count_calls():
    """Wraps a function to count its Python calls in the attribute `calls`."""

    def count(f):
        def wrapped(*args):
            wrapped.calls += 1
            return f(*args)

        wrapped.calls = 0
        return wrapped

    return count


@pytest.mark.parametrize("route", transforms.ROUTES)
def test_repeated_step_is_traced_once(count_calls, route):
    step = count_calls(lambda state, arrays: (state + arrays, {"was": state}))
    run = jax.jit(transforms.vectorize(transforms.repeat_steps(step, max_steps=4), route))
    states, rows = run(jnp.arange(3.0), jnp.float32(2), np.int32(3))
    assert np.array_equal(states, [6, 7, 8])
    assert np.array_equal(rows["was"], [[0, 2, 4, 0], [1, 3, 5, 0], [2, 4, 6, 0]])
    assert step.calls == 1
    program = str(jax.make_jaxpr(run.__wrapped__)(states, 2.0, 3))
    assert "while[" in program and "name=<lambda>" not in program  # the step is inlined


def test_evaluation_is_traced_once(count_calls):
    values = np.arange(10.0, dtype=np.float32)
    evaluate = count_calls(lambda state, batch: {"sum": state * (batch["x"] @ batch["weight"])})
    run = jax.jit(
        transforms.evaluate_batches(evaluate, lambda arrays, rows: {"x": arrays[rows]}, 4)
    )
    assert run(2.0, values, 1, 9, 0, 3)["sum"] == 2 * values[1:].sum()
    assert evaluate.calls == 1


def test_accumulated_loss_is_traced_once(count_calls):
    x = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    loss = count_calls(lambda w, batch, key: (jnp.mean((batch @ w) ** 2), {"rows": batch[:, 0]}))
    parts = jax.jit(
        lambda w, x: mean_gradients(loss, w, x, None, ("rows",), grad_accumulation_steps=3)
    )
    grads, aux = parts(jnp.ones(2), x)
    assert loss.calls == 1
    np.testing.assert_allclose(grads, 2 * x.T @ (x @ np.ones(2)) / 6, rtol=1e-6)
    assert np.array_equal(aux["rows"], x[:, 0])

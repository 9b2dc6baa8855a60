"""Recurrent networks: fast recurrences against plain loops, carries, causality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.models.recurrent import CELLS, Layer, Recurrent

every_cell = pytest.mark.parametrize("cell", CELLS)
TOKENS = np.random.RandomState(0).randint(0, 11, (3, 9))


def plain(cell, w, x, state):
    """The textbook equations in a loop, gate by gate."""
    sigmoid = lambda y: 1 / (1 + jnp.exp(-y))
    hidden, out = w.shape[0], []
    gate = lambda y, k: y[:, k * hidden : (k + 1) * hidden]
    for t in range(len(x)):
        h = state[-1]
        if cell == "rnn":
            state = (jnp.tanh(x[t] + h @ w),)
        elif cell == "lstm":
            i, f, g, o = (gate(x[t], k) + h @ gate(w, k) for k in range(4))
            c = sigmoid(f) * state[0] + sigmoid(i) * jnp.tanh(g)
            state = (c, sigmoid(o) * jnp.tanh(c))
        else:
            r, z = (sigmoid(gate(x[t], k) + h @ gate(w, k)) for k in range(2))
            n = jnp.tanh(gate(x[t], 2) + r * (h @ gate(w, 2)))
            state = ((1 - z) * n + z * h,)
        out.append(state[-1])
    return jnp.stack(out), state


@every_cell
@pytest.mark.parametrize("time, batch", [(5, 3), (1, 1)])
def test_fast_recurrences_match_textbook_values_and_gradients(cell, time, batch):
    with jax.enable_x64(True):
        run, gates, arrays = CELLS[cell]
        r = np.random.RandomState(0)
        two = (
            r.randn(2, 4, gates * 4),
            r.randn(2, time, batch, gates * 4),
            tuple(r.randn(2, batch, 4) for _ in range(arrays)),
        )
        weight, last = r.randn(time, batch, 4), r.randn(batch, 4)

        def loss(f):
            def of(w, x, state):
                hs, end = f(w, x, state)
                return jnp.sum(weight * jnp.sin(hs)) + sum(jnp.sum(last * e**2) for e in end)

            return of

        fast, slow = (
            jax.jit(jax.vmap(jax.value_and_grad(loss(f), argnums=(0, 1, 2))))
            for f in (run, lambda *a: plain(cell, *a))
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
            fast(*two),
            slow(*two),
        )


@functools.partial(jax.jit, static_argnums=0)
def apply(net, params, tokens, carry=None, rngs=None):
    return net.apply(params, tokens, carry, rngs=rngs)


@functools.cache
def network(cell, **more):
    """A network with parameters drawn by NumPy: a program of random numbers takes
    longer to compile than the network.
    """
    net = Recurrent(
        **dict(vocabulary=11, cell=cell, width=6, layers=2, embedding=6, dropout=0.0, tied=False)
        | more,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
    )
    assert net.config_error() == ""
    random = np.random.RandomState(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), TOKENS)
    return net, jax.tree.map(lambda x: jnp.asarray(0.4 * random.randn(*x.shape), x.dtype), shapes)


@pytest.mark.parametrize(
    "tied, cell",
    [
        pytest.param(tied, cell, marks=[pytest.mark.slow] * (tied != (cell == "lstm")))
        for tied in (True, False)
        for cell in CELLS
    ],
)
def test_passing_the_carry_equals_the_full_sequence(cell, tied):
    with jax.enable_x64(True):
        net, params = network(cell, tied=tied)
        whole, end = apply(net, params, TOKENS)
        first, carry = apply(net, params, TOKENS[:, :4])
        second, carry = apply(net, params, TOKENS[:, 4:], carry)
        np.testing.assert_allclose(
            np.concatenate([first, second], axis=1), whole, rtol=1e-12, atol=1e-12
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), carry, end
        )
        assert (
            np.abs(apply(net, params, TOKENS[:, 4:])[0] - second).max() > 1e-6
        )  # the carry has an effect


@every_cell
def test_logits_do_not_depend_on_later_tokens(cell):
    """Other tokens from t on change no logit before t, and all logits at t."""
    with jax.enable_x64(True):
        net, params = network(cell)
        out = apply(net, params, TOKENS)[0]
        for t in (1, 5, 8):
            other = TOKENS.copy()
            other[:, t:] = (other[:, t:] + 1) % 11
            again = apply(net, params, other)[0]
            np.testing.assert_array_equal(again[:, :t], out[:, :t])
            assert (again[:, t, :11] != out[:, t, :11]).all()


@every_cell
def test_padded_ids_have_zero_probability_and_dropout_depends_on_the_key(cell):
    with jax.enable_x64(True):
        net, params = network(cell, dropout=0.5)
        off = apply(net, params, TOKENS)[0]
        assert (
            off.shape == (3, 9, 128)
            and np.asarray(jax.nn.softmax(off, axis=-1))[..., 11:].max() == 0
        )
        one, two = (
            apply(net, params, TOKENS, rngs={"dropout": jax.random.key(k)})[0] for k in (1, 2)
        )
        assert (one[..., :11] != off[..., :11]).any() and (one[..., :11] != two[..., :11]).any()


def test_tied_narrow_embedding_is_preceded_by_a_projection():
    tokens = np.random.RandomState(0).randint(0, 11, (2, 5))
    net = Recurrent(11, "lstm", 6, 1, 4, 0.0, True)

    @jax.jit
    def both(tokens):
        params = net.init(jax.random.key(1), tokens)["params"]
        x, _ = Layer("lstm", 6).apply(
            {"params": params["layer_0"]},
            params["embed"]["embedding"][tokens],
            (jnp.zeros((2, 6)),) * 2,
        )
        projected = x @ params["projection"]["kernel"] + params["projection"]["bias"]
        logits = projected @ params["embed"]["embedding"].T
        return params, logits, net.apply({"params": params}, tokens)[0]

    params, expected, logits = both(tokens)
    assert params["projection"]["kernel"].shape == (6, 4) and "head" not in params
    np.testing.assert_allclose(logits[..., :11], expected[..., :11], rtol=1e-4, atol=1e-5)


def test_invalid_dropout_is_reported():
    assert "must be in" in Recurrent(11, "lstm", 6, 2, 4, 1.5, False).config_error()

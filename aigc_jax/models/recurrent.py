"""Recurrent networks on tokens, (tokens [B, T], carry) -> (logits [B, T, V], carry):
tanh RNN, LSTM and GRU.

The recurrences are written for speed: computations that do not depend on the previous
state are outside the loop over time. One matrix product before the loop projects the
inputs. The backward loop computes only the gradients of the pre-activations, and one
product after it the gradient of the recurrent weight, which automatic differentiation
would compute as a sum of T small products. Dropout is active if `apply` receives a
"dropout" key.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.axes import with_logical_constraint
from aigc_jax.core.method import Array, PyTree
from aigc_jax.models.layers import Network, dropout, mask_logits, round_up_vocabulary
from aigc_jax.models.reductions import Dense, project


def make_recurrence(
    forward: Callable, backward: Callable
) -> Callable:  # -> f([H, G H], [T, B, G H], state) -> [T, B, H], state
    """Return a recurrence f(w, x, state) -> (hs, state) with its own gradients.

    f scans over T steps: w [H, G H] is the recurrent weight of G gates, x [T, B, G H]
    are the projected inputs, and the state is a tuple of [B, H] whose last entry is h;
    hs is [T, B, H]. The functions of the cells below are `forward` and `backward` of
    this function.

    Args:
      forward: one step, (x [B, G H], h w [B, G H], state) -> (new state, saved), where
        saved are the values that `backward` needs.
      backward: its gradient, (saved, state before, state after, d state after) -> (d x
        [B, G H], d (h w) [B, G H], d state before without the path through h w).
    """

    def run(w, x, state):
        def step(state, x):
            new, saved = forward(x, state[-1] @ w, state)
            return new, (new, saved, state)

        end, (states, saved, before) = jax.lax.scan(step, state, x)
        return (states[-1], end), (w, saved, before, states)

    @jax.custom_vjp
    def f(w, x, state):
        return run(w, x, state)[0]

    def vjp(residuals, gradients):
        w, saved, before, after = residuals
        d_hs, d_end = gradients
        # Transposed once, before the loop: a transpose within the product of each step
        # makes that product 1.5 times as expensive where the batch is small.
        transposed = w.T

        def step(d, at):
            d_h, saved, before, after = at
            d = (*d[:-1], d[-1] + d_h)
            d_x, d_product, d = backward(saved, before, after, d)
            return (*d[:-1], d[-1] + d_product @ transposed), (d_x, d_product)

        d_state, (d_x, d_product) = jax.lax.scan(
            step, d_end, (d_hs, saved, before, after), reverse=True
        )
        flat = lambda y: y.reshape(-1, y.shape[-1])
        return flat(before[-1]).T @ flat(d_product), d_x, d_state

    f.defvjp(run, vjp)
    return f


def rnn_forward(
    x: Array, wh: Array, state: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:  # x, W h: [B, H] -> new state, saved
    """Compute one step of the tanh RNN: h_t = tanh(x_t + W h_{t-1}) (Elman 1990)."""
    return (jnp.tanh(x + wh),), ()


def rnn_backward(
    saved: tuple[Array, ...],
    state_before: tuple[Array, ...],
    state_after: tuple[Array, ...],
    d_after: tuple[Array, ...],
) -> tuple[Array, Array, tuple[Array, ...]]:  # d x, d (W h): [B, H], d state_before (not via W h)
    """Return (d x, d (W h), d state before) of `rnn_forward`: [B, H] twice, then 0 for
    h, which enters only through the product.
    """
    d_x = d_after[0] * (1 - state_after[0] ** 2)
    return d_x, d_x, (jnp.zeros_like(d_after[0]),)


def lstm_forward(
    x: Array, wh: Array, state: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:  # x, W h: [B, 4 H] -> new state, saved
    """Compute one step of the LSTM: c_t = f c_{t-1} + i g and h_t = o tanh(c_t).

    i, f and o are sigmoids and g a tanh of x_t + W h_{t-1} (Hochreiter & Schmidhuber
    1997, with the forget gate of Gers et al. 2000).
    """
    i, f, g, o = jnp.split(x + wh, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * state[0] + i * g
    return (c, o * jnp.tanh(c)), (i, f, g, o)


def lstm_backward(
    saved: tuple[Array, ...],
    state_before: tuple[Array, ...],
    state_after: tuple[Array, ...],
    d_after: tuple[Array, ...],
) -> tuple[Array, Array, tuple[Array, ...]]:  # d x, d (W h): [B, 4 H], d state_before (not via W h)
    """Return (d x, d (W h), d state before) of `lstm_forward`: [B, 4 H] twice, then the
    gradient of c, and 0 for h, which enters only through the product.
    """
    i, f, g, o = saved
    tanh_c = jnp.tanh(state_after[0])
    d_c = d_after[0] + d_after[1] * o * (1 - tanh_c**2)
    d_x = jnp.concatenate(
        [
            d_c * g * i * (1 - i),
            d_c * state_before[0] * f * (1 - f),
            d_c * i * (1 - g**2),
            d_after[1] * tanh_c * o * (1 - o),
        ],
        axis=-1,
    )
    return d_x, d_x, (d_c * f, jnp.zeros_like(d_c))


def gru_forward(
    x: Array, wh: Array, state: tuple[Array, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:  # x, W h: [B, 3 H] -> new state, saved
    """Compute one step of the GRU: h_t = (1 - z) n + z h_{t-1} with n = tanh(x_n + r
    W_n h_{t-1}) and sigmoids r and z (Cho et al. 2014).

    The reset gate r is applied after the product, so that a step has one product.
    """
    (r, z, n), (pr, pz, pn) = jnp.split(x, 3, axis=-1), jnp.split(wh, 3, axis=-1)
    r, z = jax.nn.sigmoid(r + pr), jax.nn.sigmoid(z + pz)
    n = jnp.tanh(n + r * pn)
    return ((1 - z) * n + z * state[0],), (r, z, n, pn)


def gru_backward(
    saved: tuple[Array, ...],
    state_before: tuple[Array, ...],
    state_after: tuple[Array, ...],
    d_after: tuple[Array, ...],
) -> tuple[Array, Array, tuple[Array, ...]]:  # d x, d (W h): [B, 3 H], d state_before (not via W h)
    """Return (d x, d (W h), d state before) of `gru_forward`: [B, 3 H] twice, then the
    gradient of h without the path through the product.
    """
    r, z, n, pn = saved
    d_n = d_after[0] * (1 - z) * (1 - n**2)
    d_r, d_z = d_n * pn * r * (1 - r), d_after[0] * (state_before[0] - n) * z * (1 - z)
    return (
        jnp.concatenate([d_r, d_z, d_n], axis=-1),
        jnp.concatenate([d_r, d_z, d_n * r], axis=-1),
        (d_after[0] * z,),
    )


# cell -> (recurrence, number of gates, number of arrays in its state)
CELLS = {
    "rnn": (make_recurrence(rnn_forward, rnn_backward), 1, 1),
    "lstm": (make_recurrence(lstm_forward, lstm_backward), 4, 2),
    "gru": (make_recurrence(gru_forward, gru_backward), 3, 1),
}


class Layer(nn.Module):
    """One recurrence over [B, T, D].

    Initial kernels are uniform: that of the input with variance 1 / D, the recurrent
    one within 1 / sqrt(H), as in PyTorch. Initial biases are 0, and 1 for the forget
    gate of an LSTM (Jozefowicz et al. 2015, section 4). Orthogonal kernels would need a
    QR decomposition: with jaxlib 0.10.2 several concurrent ones never return on a CPU
    (docs/design/log.md).
    """

    cell: str
    width: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, state: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:  # [B, T, D], state -> [B, T, H], state
        """Return h after every step, and the state after the last one."""
        run, gates, _ = CELLS[self.cell]

        def recurrent(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -1, 1) * self.width**-0.5

        def bias(key, shape, dtype):
            return (
                jnp.zeros(shape, dtype)
                .at[self.width : 2 * self.width]
                .set(1.0 if self.cell == "lstm" else 0.0)
            )

        kernel = self.param(
            "kernel",
            nn.initializers.lecun_uniform(),
            (x.shape[-1], gates * self.width),
            self.param_dtype,
        )
        w = self.param(
            "recurrent_kernel", recurrent, (self.width, gates * self.width), self.param_dtype
        )
        b = self.param("bias", bias, (gates * self.width,), self.param_dtype)
        x, kernel, w, b = (y.astype(self.dtype) for y in (x, kernel, w, b))
        hs, state = run(w, x.swapaxes(0, 1) @ kernel + b, state)
        return hs.swapaxes(0, 1), state


class Recurrent(Network):
    """Embedding, recurrent layers and logits, with dropout between layers but not
    between time steps (Zaremba et al. 2014).
    """

    vocabulary: int
    cell: str
    width: int
    layers: int
    embedding: int
    dropout: float
    tied: bool  # logits through the embedding's transpose (Press & Wolf 2017)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    choices = dict(cell=CELLS)
    carry_axis = 0  # of the batch in a carry
    capacity = None  # no limit on the number of positions

    def config_error(self) -> str:  # '' if dropout is in [0, 1)
        """Return an error message if `dropout` is not in [0, 1), or ''."""
        return "" if 0 <= self.dropout < 1 else f"dropout = {self.dropout} must be in [0, 1)"

    @property
    def compiler_options(self) -> dict[str, dict]:  # {platform: {option: value}}
        """The compiler options, which choose the product of a few rows by a weight on
        CPUs. For a weight larger than a core's cache XLA's own product takes two thirds
        of the time of YNNPACK's; for small weights it takes a fifth longer
        (docs/design/log.md).
        """
        wide = CELLS[self.cell][1] * self.width**2 * 4 > 2**21
        return (
            {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}}
            if wide
            else {}
        )

    def empty_carry(
        self, batch_size: int, length: int = 0
    ) -> tuple[tuple[Array, ...], ...]:  # zeros, layers x 1 or 2 x [B, H]
        """Return the state before the first token: zeros, independent of `length`."""
        return tuple(
            tuple(
                jnp.zeros((batch_size, self.width), self.dtype) for _ in range(CELLS[self.cell][2])
            )
            for _ in range(self.layers)
        )

    @nn.compact
    def __call__(
        self, tokens: Array, carry: PyTree | None = None
    ) -> tuple[Array, PyTree]:  # [B, T], carry -> [B, T, V], carry
        """Return the logits of tokens that follow `carry`, and the next carry; None is
        the carry before the first token.
        """
        carry = self.empty_carry(len(tokens)) if carry is None else carry
        dtype_fields = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normal = nn.initializers.normal(self.embedding**-0.5)
        embed = nn.Embed(
            round_up_vocabulary(self.vocabulary),
            self.embedding,
            embedding_init=normal,
            name="embed",
            **dtype_fields,
        )
        x, states = (
            with_logical_constraint(dropout(self, embed(tokens), self.dropout), "examples"),
            [],
        )
        for i, state in enumerate(carry):
            x, state = Layer(self.cell, self.width, name=f"layer_{i}", **dtype_fields)(x, state)
            x = with_logical_constraint(dropout(self, x, self.dropout), "examples")
            states.append(state)
        if self.tied and self.embedding != self.width:
            x = Dense(self.embedding, name="projection", **dtype_fields)(x)
        logits = (
            project(x, embed.embedding.T.astype(x.dtype))
            if self.tied
            else Dense(round_up_vocabulary(self.vocabulary), name="head", **dtype_fields)(x)
        )
        return mask_logits(logits, self.vocabulary), tuple(states)

"""Recurrent networks on tokens: tanh RNN, LSTM, GRU. (tokens [B, T], carry) -> (logits
[B, T, V], carry).

The recurrences are written for speed: what does not depend on the state before is left
outside of the loop over time. Inputs are projected in one matrix product before it; its
backward pass gives the gradients of the pre-activations alone, and that of the
recurrent weight is one product after it. Differentiated as they stand, the weight's
gradient would be a sum of T small products. Dropout is on where `apply` is given a
"dropout" key.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aigc_jax.core.axes import axes
from aigc_jax.models.layers import Network, dropout, mask_logits, padded
from aigc_jax.models.reductions import Dense, project


def loop(forward, backward):
    """A recurrence f(w, x, state) -> (hs, state) with its gradients: w [H, G H], x [T,
    B, G H] the projected inputs, state a tuple of [B, H] whose last is h; hs [T, B, H].

    forward    (x + h w [B, G H] or what the cell makes of both, state) -> (state,
               saved): one step
    backward   (saved, state before, state after, d state) -> (d x [B, G H], d (h w) [B,
               G H], d state before but for the way through h w)
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

    def vjp(kept, gradients):
        w, saved, before, after = kept
        d_hs, d_end = gradients
        # Transposed once: within each step's product it costs that product a half more
        # where the batch is small.
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


def rnn_forward(x, product, state):
    """h_t = tanh(x_t + W h_{t-1}) (Elman 1990)."""
    return (jnp.tanh(x + product),), ()


def rnn_backward(saved, before, after, d):
    """Return (d x, d (W h), d state before) of `rnn_forward`, [B, H] each."""
    d_x = d[0] * (1 - after[0] ** 2)
    return d_x, d_x, (jnp.zeros_like(d[0]),)


def lstm_forward(x, product, state):
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t); i, f, o sigmoids and g a tanh of x_t +
    W h_{t-1} (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).
    """
    i, f, g, o = jnp.split(x + product, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * state[0] + i * g
    return (c, o * jnp.tanh(c)), (i, f, g, o)


def lstm_backward(saved, before, after, d):
    """Return (d x, d (W h), d state before) of `lstm_forward`: [B, 4 H] twice, then
    that of c and 0, for h is in the product alone.
    """
    i, f, g, o = saved
    tanh_c = jnp.tanh(after[0])
    d_c = d[0] + d[1] * o * (1 - tanh_c**2)
    d_x = jnp.concatenate(
        [
            d_c * g * i * (1 - i),
            d_c * before[0] * f * (1 - f),
            d_c * i * (1 - g**2),
            d[1] * tanh_c * o * (1 - o),
        ],
        axis=-1,
    )
    return d_x, d_x, (d_c * f, jnp.zeros_like(d_c))


def gru_forward(x, product, state):
    """h_t = (1 - z) n + z h_{t-1}, n = tanh(x_n + r W_n h_{t-1}), r and z sigmoids (Cho
    et al. 2014, with the reset gate after the product, so that there is one product a
    step).
    """
    (r, z, n), (pr, pz, pn) = jnp.split(x, 3, axis=-1), jnp.split(product, 3, axis=-1)
    r, z = jax.nn.sigmoid(r + pr), jax.nn.sigmoid(z + pz)
    n = jnp.tanh(n + r * pn)
    return ((1 - z) * n + z * state[0],), (r, z, n, pn)


def gru_backward(saved, before, after, d):
    """Return (d x, d (W h), d state before) of `gru_forward`: [B, 3 H] twice, then what
    reaches h past the product.
    """
    r, z, n, pn = saved
    d_n = d[0] * (1 - z) * (1 - n**2)
    d_r, d_z = d_n * pn * r * (1 - r), d[0] * (before[0] - n) * z * (1 - z)
    return (
        jnp.concatenate([d_r, d_z, d_n], axis=-1),
        jnp.concatenate([d_r, d_z, d_n * r], axis=-1),
        (d[0] * z,),
    )


# cell -> (recurrence, gates, arrays of its state)
CELLS = {
    "rnn": (loop(rnn_forward, rnn_backward), 1, 1),
    "lstm": (loop(lstm_forward, lstm_backward), 4, 2),
    "gru": (loop(gru_forward, gru_backward), 3, 1),
}


class Layer(nn.Module):
    """One recurrence over [B, T, D]. Kernels begin as uniform numbers, the input's of
    variance 1 / D, the recurrent one's within 1 / sqrt(H) as PyTorch's do; biases at 0,
    those of an LSTM's forget gate at 1 (Jozefowicz et al. 2015, section 4). Orthogonal
    ones would need a QR decomposition, which several at once never return from on a CPU
    with jaxlib 0.10.2 (docs/LOG.md).
    """

    cell: str
    width: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, state):  # [B, T, D], state -> [B, T, H], state
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
    """Embedding, recurrent layers, logits; dropout between them but never on the way
    through time (Zaremba et al. 2014).
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
    capacity = None  # positions that there are: any number

    def misfit(self) -> str:
        """Return why `dropout` is no rate, or ''."""
        return "" if 0 <= self.dropout < 1 else f"dropout = {self.dropout} must lie in [0, 1)"

    @property
    def compiler(self) -> dict[str, dict]:
        """Of few rows by a weight that no core's cache holds, XLA's own product on CPUs
        takes two thirds of the time of YNNPACK's; of small weights it takes a fifth
        longer (docs/LOG.md).
        """
        wide = CELLS[self.cell][1] * self.width**2 * 4 > 2**21
        return (
            {"cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}}
            if wide
            else {}
        )

    def carry(self, batch: int, length: int = 0):
        """The state before the first token: zeros, whose size no length changes."""
        return tuple(
            tuple(jnp.zeros((batch, self.width), self.dtype) for _ in range(CELLS[self.cell][2]))
            for _ in range(self.layers)
        )

    @nn.compact
    def __call__(self, tokens, carry=None):  # [B, T], carry -> [B, T, V], carry
        """Return the logits [B, T, V] of tokens [B, T] that follow on `carry`, and the
        carry after them; None is the carry before the first token.
        """
        carry = self.carry(len(tokens)) if carry is None else carry
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normal = nn.initializers.normal(self.embedding**-0.5)
        embed = nn.Embed(
            padded(self.vocabulary), self.embedding, embedding_init=normal, name="embed", **types
        )
        x, states = axes(dropout(self, embed(tokens), self.dropout), "examples"), []
        for i, state in enumerate(carry):
            x, state = Layer(self.cell, self.width, name=f"layer_{i}", **types)(x, state)
            x = axes(dropout(self, x, self.dropout), "examples")
            states.append(state)
        if self.tied and self.embedding != self.width:
            x = Dense(self.embedding, name="projection", **types)(x)
        logits = (
            project(x, embed.embedding.T.astype(x.dtype))
            if self.tied
            else Dense(padded(self.vocabulary), name="head", **types)(x)
        )
        return mask_logits(logits, self.vocabulary), tuple(states)

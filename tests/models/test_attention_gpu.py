"""Attention on a real GPU in bfloat16: values and gradients are those of float32, by
cuDNN's kernel where it is chosen and by XLA elsewhere. Run by `make gpu`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.models import attention

NAMES = ("value", "dq", "dk", "dv")
# bfloat16 has 8 significant bits: relative to the norm, rounding inputs, weights and
# outputs stays below this.
TOLERANCE = 0.02


@pytest.fixture(autouse=True)
def ampere_or_later():
    """The GPU; the test is skipped without one that has bfloat16."""
    if jax.default_backend() != "gpu":
        pytest.skip(f"needs an NVIDIA GPU, JAX runs on {jax.default_backend()}")
    version = str(getattr(jax.devices()[0], "compute_capability", ""))
    if not version.replace(".", "").isdigit() or float(version) < 8:
        pytest.skip(f"needs an NVIDIA GPU of the Ampere generation or later, not {version}")


def make_inputs(queries, keys, heads, groups, size, batch=2):
    """q, k, v and the gradient of the output, as rounded to bfloat16."""
    shapes = [(batch, n, h, size) for n, h in ((queries, heads), *[(keys, groups)] * 2)]
    shapes.append(shapes[0])
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, s, "bfloat16") for k, s in zip(keys, shapes, strict=True)]


def value_and_gradients(inputs, dtype, **more):
    q, k, v, cotangent = (x.astype(dtype) for x in inputs)

    @jax.jit
    def run(q, k, v):
        y, backward = jax.vjp(lambda *x: attention.dot_product_attention(*x, **more), q, k, v)
        return (y, *backward(cotangent))

    return run(q, k, v), run.lower(q, k, v).as_text()


def padding(keys, batch=2):
    """True at the first keys: all of one sequence, half of the others."""
    counts = np.where(np.arange(batch) == 0, keys, keys // 2)
    return jnp.asarray(np.arange(keys) < counts[:, None])[:, None, None]


@pytest.mark.parametrize(
    "sizes, more, is_fused",
    [
        ((1024, 1024, 12, 12, 64), dict(causal=True), True),
        ((1024, 1024, 12, 12, 64), {}, True),
        ((1024, 1024, 12, 4, 64), dict(causal=True), True),
        ((128, 128, 8, 8, 128), dict(causal=True), True),
        ((64, 30, 8, 8, 64), {}, True),
        ((64, 32, 8, 8, 64), dict(mask=padding(32)), False),
        ((512, 512, 8, 8, 64), dict(mask=padding(512)), False),
        ((1023, 1023, 12, 12, 64), dict(causal=True), False),
        ((64, 33, 8, 8, 64), {}, False),
    ],
    ids=[
        "gpt2",
        "gpt2_all_keys",
        "gpt2_grouped",
        "wide_heads",
        "cross",
        "cross_padding",
        "padding",
        "odd_causal",
        "odd",
    ],
)
def test_bfloat16_attention_equals_float32_within_rounding(sizes, more, is_fused):
    inputs = make_inputs(*sizes)
    with jax.default_matmul_precision("highest"):
        exact, _ = value_and_gradients(inputs, "float32", **more)
    found, text = value_and_gradients(inputs, "bfloat16", **more)
    assert ("fmhaSoftmaxBackward" in text) == is_fused
    for name, x, y in zip(NAMES, found, exact, strict=True):
        x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
        assert np.linalg.norm(x - y) <= TOLERANCE * np.linalg.norm(y), name


def test_fused_attention_of_trials_equals_that_of_each():
    trials = [make_inputs(64, 64, 4, 4, 64) for _ in range(3)]
    stacked = [
        jnp.stack([(i + 1) * x for i, x in enumerate(xs)]) for xs in zip(*trials, strict=True)
    ]

    def run(q, k, v, cotangent):
        call = lambda *x: attention.dot_product_attention(*x, causal=True)
        y, backward = jax.vjp(call, q, k, v)
        return (y, *backward(cotangent))

    together = jax.jit(jax.vmap(run))(*stacked)
    for i in range(3):
        for name, x, y in zip(NAMES, run(*(x[i] for x in stacked)), together, strict=True):
            x, y = np.asarray(x, "float64"), np.asarray(y[i], "float64")
            assert np.linalg.norm(x - y) <= TOLERANCE * np.linalg.norm(x), name

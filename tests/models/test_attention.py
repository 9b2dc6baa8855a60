"""Which inputs cuDNN's fused attention computes, and that JAX lowers it for them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from aigc_jax.models import attention

pytestmark = pytest.mark.unit

CASES = [
    (True, "9.0", {}),
    (True, "8.0", dict(dtype="float16", causal=True)),
    (False, "7.5", {}),
    (False, "gfx90a", {}),
    (False, "9.0", dict(dtype="float32")),
    (False, "9.0", dict(bias=jnp.zeros((1, 2, 8, 8)))),
    (False, "9.0", dict(size=20)),
    (True, "9.0", dict(size=256)),
    (False, "8.9", dict(size=256)),
    (False, "9.0", dict(size=264)),
    (False, "9.0", dict(queries=7, keys=7, causal=True)),
    (False, "9.0", dict(keys=7)),
    (True, "9.0", dict(keys_per_head=1, keys=6)),
    (False, "9.0", dict(mask=jnp.ones((1, 1, 8, 8), bool))),
    (False, "9.0", dict(mask=jnp.ones((1, 1, 1, 8), bool))),
]


def pretend_gpu(monkeypatch, version):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=version)])


def make_inputs(dtype="bfloat16", queries=8, keys=8, size=64, keys_per_head=2, **more):
    """Queries [1, queries, 2, size], keys, and the other arguments of the attention."""
    return (
        jnp.zeros((1, queries, 2, size), dtype),
        jnp.zeros((1, keys, keys_per_head, size), dtype),
        more,
    )


@pytest.mark.parametrize("fused, version, inputs", CASES)
def test_cudnn_computes_what_its_kernel_takes(monkeypatch, fused, version, inputs):
    chosen = []
    pretend_gpu(monkeypatch, version)
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *_, implementation, **__: chosen.append(implementation),
    )
    q, k, more = make_inputs(**inputs)
    attention.dot_product_attention(q, k, k, **more)
    assert chosen == ["cudnn" if fused else None]


@pytest.mark.parametrize("trials", [0, 3])
@pytest.mark.parametrize("version, inputs", [(v, inputs) for fused, v, inputs in CASES if fused])
def test_fused_gradients_are_lowered_for_cuda(monkeypatch, version, inputs, trials):
    """JAX checks the shapes of cuDNN's kernel when it traces, without a GPU too."""
    at_least = lambda least: float(version) >= float(least)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", at_least)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    pretend_gpu(monkeypatch, version)
    q, k, more = make_inputs(**inputs)

    def loss(q, k, v):
        y = attention.dot_product_attention(q, k, v, **more).astype(jnp.float32)
        return (y * y).sum()  # not y: vmap of the kernel needs a gradient per trial

    gradient, args = jax.grad(loss, (0, 1, 2)), (q, k, k)
    if trials:
        gradient, args = jax.vmap(gradient), [jnp.stack([x] * trials) for x in args]
    text = jax.jit(gradient).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    assert "fmhaSoftmaxBackward" in text or "fmhaScaleBiasSoftmaxBackward" in text

"""Which inputs cuDNN's fused attention computes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from aigc_jax.models import attention

pytestmark = pytest.mark.unit


def choose(monkeypatch, version, dtype="bfloat16", queries=8, keys=8, size=64, **more):
    """The implementation for queries [1, queries, 2, size] on a GPU of a version."""
    chosen = []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=version)])
    monkeypatch.setattr(
        jax.nn,
        "dot_product_attention",
        lambda *_, implementation, **__: chosen.append(implementation),
    )
    q, k = (jnp.zeros((1, n, 2, size), dtype) for n in (queries, keys))
    attention.dot_product_attention(q, k, k, **more)
    return chosen[0]


@pytest.mark.parametrize(
    "fused, version, inputs",
    [
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
        (True, "9.0", dict(queries=7, keys=7)),
        (True, "9.0", dict(mask=jnp.ones((1, 1, 8, 8), bool))),
        (False, "9.0", dict(mask=jnp.ones((1, 1, 7, 8), bool), queries=7)),
        (False, "9.0", dict(mask=jnp.ones((1, 1, 8, 7), bool), keys=7)),
    ],
)
def test_cudnn_computes_what_its_kernel_takes(monkeypatch, fused, version, inputs):
    assert choose(monkeypatch, version, **inputs) == ("cudnn" if fused else None)

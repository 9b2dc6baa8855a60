"""VQ-VAE: straight-through gradients, nearest codes, the codebook's averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import resolved, tiny

from aigc_jax import methods
from aigc_jax.data.dataset import Spec
from aigc_jax.methods.vqvae import nearest_code_index, perplexity, straight_through, update_codebook

pytestmark = pytest.mark.unit

random = np.random.RandomState(0)


def test_straight_through_returns_the_code_and_the_encoder_gradient():
    z, code = jnp.asarray(random.randn(5, 3)), jnp.asarray(random.randn(5, 3))
    np.testing.assert_allclose(straight_through(z, code), code, rtol=1e-6)
    weights = jnp.asarray(random.randn(5, 3))
    np.testing.assert_allclose(
        jax.grad(lambda z: (weights * straight_through(z, code)).sum())(z), weights
    )
    np.testing.assert_allclose(
        jax.grad(lambda code: (weights * straight_through(z, code)).sum())(code), 0
    )


def test_nearest_code_minimizes_the_distance():
    z, codebook = random.randn(4, 5, 3), random.randn(7, 3)
    assert (
        nearest_code_index(z, codebook) == ((z[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)
    ).all()


def test_codes_move_to_output_averages_and_dead_codes_restart():
    z = jnp.array([[0.0, 0.0], [2.0, 0.0], [10.0, 1.0], [12.0, 1.0]])
    codes = jnp.array([[1.0, 1.0], [9.0, 9.0], [-50.0, 0.0]])
    codebook = dict(
        codes=codes,
        counts=jnp.array([2.0, 2.0, 0.01]),
        sums=codes * jnp.array([[2.0], [2.0], [0.01]]),
    )
    move = jax.jit(
        lambda dead: update_codebook(
            codebook, z, jnp.array([0, 0, 1, 1]), 0.5, dead, jax.random.key(0)
        )
    )
    new = move(0.1)
    # halfway to (1, 0) and (11, 1)
    np.testing.assert_allclose(new["codes"][:2], [[1.0, 0.5], [10.0, 5.0]])
    assert any((new["codes"][2] == row).all() for row in z) and float(
        new["counts"][2]
    ) == pytest.approx(4 / 3)
    kept = move(0.0)
    np.testing.assert_allclose(kept["codes"][2], codes[2], rtol=1e-6)
    # A code without any output is reset at every threshold: 0 / 0 is no code.
    none = jax.tree.map(jnp.zeros_like, codebook)
    first = jax.jit(update_codebook)(none, z, jnp.zeros(4, int), 0.5, 0.0, jax.random.key(0))
    np.testing.assert_allclose(first["codes"][0], z.mean(0))
    for code in first["codes"][1:]:
        assert any((code == row).all() for row in z)
    assert (
        float(perplexity(jnp.array([3.0, 3.0, 3.0, 0.0]))) == pytest.approx(3)
        and float(perplexity(jnp.array([9.0, 0.0]))) == 1
    )


def test_vqvae_has_only_a_reconstruction_sampler():
    """Error messages list the table of samplers."""
    spec = Spec("image", (8, 8, 1), 100, classes=10, levels=16)
    assert methods.make_method(resolved(tiny("vqvae")), spec).samplers.keys() == {"reconstruction"}

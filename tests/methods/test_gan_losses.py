"""Losses and penalties of GANs against formulas, finite differences and by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aigc_jax.methods.augment import translation
from aigc_jax.methods.gan_penalties import REGULARIZERS, PenaltyInputs
from aigc_jax.methods.losses import gan as gan_losses

REAL, FAKE = np.array([0.0, 2.0, -1.5]), np.array([0.0, -3.0, 0.7])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# -- losses


def test_gan_losses_match_published_formulas():
    d_real, d_fake = sigmoid(REAL), sigmoid(FAKE)
    both = -np.log(d_real) - np.log(1 - d_fake)
    relative = REAL - FAKE.mean(), FAKE - REAL.mean()
    expected = {
        "minimax": (both, np.log(1 - d_fake)),
        "non_saturating": (both, -np.log(d_fake)),
        "least_squares": ((REAL - 1) ** 2 / 2 + FAKE**2 / 2, (FAKE - 1) ** 2 / 2),
        "wasserstein": (FAKE - REAL, -FAKE),
        "hinge": (np.maximum(0, 1 - REAL) + np.maximum(0, 1 + FAKE), -FAKE),
        "relativistic_average": (
            -np.log(sigmoid(relative[0])) - np.log(1 - sigmoid(relative[1])),
            -np.log(sigmoid(relative[1])) - np.log(1 - sigmoid(relative[0])),
        ),
    }
    assert set(expected) == set(gan_losses.GAN)
    for name, (discriminator, generator) in expected.items():
        np.testing.assert_allclose(
            gan_losses.GAN[name].discriminator_loss(REAL, FAKE),
            discriminator,
            rtol=1e-5,
            err_msg=name,
        )
        np.testing.assert_allclose(
            gan_losses.GAN[name].generator_loss(REAL, FAKE), generator, rtol=1e-5, err_msg=name
        )


def test_gan_losses_at_equilibrium_and_for_extreme_logits():
    each = lambda f: jax.jit(lambda *x: {k: f(loss, *x) for k, loss in gan_losses.GAN.items()})
    at = each(lambda loss, real, fake: loss.discriminator_loss(real, fake))
    even = at(jnp.zeros(4), jnp.zeros(4))
    for name in ("minimax", "non_saturating", "relativistic_average"):  # Goodfellow 2014, theorem 1
        np.testing.assert_allclose(even[name], 2 * math.log(2), rtol=1e-6)
    far = at(jnp.array([-1e4]), jnp.array([1e4]))
    assert all(np.isfinite(value).all() for value in far.values())
    rejected = jnp.array([-30.0])  # confident D: only the minimax gradient vanishes
    slope = each(lambda loss, x: jax.grad(lambda x: loss.generator_loss(x, x).sum())(x)[0])(
        rejected
    )
    assert abs(slope["minimax"]) < 1e-6
    assert slope["non_saturating"] == pytest.approx(-1)


def test_one_sided_smoothing_moves_the_optimal_output_to_one_minus_s():
    """The minimum of the term of real examples: D = 1 - s of the logistic loss, and the
    target 1 - s of least squares.
    """
    for name, best in (("non_saturating", math.log(0.9 / 0.1)), ("least_squares", 0.9)):
        slope = jax.grad(
            lambda x, f=gan_losses.GAN[name]: f.discriminator_loss(
                x, -1e9 if f.boundary == 0 else 0.0, 0.1
            )
        )
        assert abs(slope(jnp.float32(best))) < 1e-6
        assert slope(jnp.float32(best + 1)) > 0 > slope(jnp.float32(best - 1))


# -- penalties


def penalty_inputs(d, real, fake):
    n = len(real)
    z = jax.random.normal(jax.random.key(5), (n, 3))
    return PenaltyInputs(
        d, lambda z: jnp.tile(z, (1, 2)), real, fake, z, z[::-1], jax.random.key(6), jnp.arange(n)
    )


@pytest.mark.parametrize("pack", [1, 2])
def test_gradient_penalties_equal_finite_differences(pack):
    """For a nonlinear discriminator: the squared slope at the points of each penalty,
    by central differences in float64.
    """
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        w, v = jax.random.normal(keys[0], (5 * pack, 7)), jax.random.normal(keys[1], (7,))
        d = jax.jit(lambda x: jnp.tanh(x.reshape(-1, 5 * pack) @ w) @ v)
        real, fake = jax.random.normal(keys[2], (6, 5)), 3 + jax.random.normal(keys[3], (6, 5))
        for name in ("gradient_penalty", "dragan", "r1", "r2"):
            rule = REGULARIZERS[name].discriminator
            value = jax.jit(lambda real, fake, rule=rule: rule(penalty_inputs(d, real, fake)))(
                real, fake
            )
            x = penalty_points(name, real, fake)
            step, squares = 1e-5, np.zeros(6 // pack)
            for i, j in np.ndindex(6, 5):
                e = np.zeros((6, 5))
                e[i, j] = step
                squares[i // pack] += (
                    (np.asarray(d(x + e)) - np.asarray(d(x - e)))[i // pack] / (2 * step)
                ) ** 2
            expected = squares / 2 if name in ("r1", "r2") else (np.sqrt(squares) - 1) ** 2
            np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)


def penalty_points(name, real, fake):
    """The points at which a penalty evaluates the slope of the discriminator."""
    seen = []

    def spy(x):
        jax.debug.callback(lambda y: seen.append(np.asarray(y)), x)
        return x.sum(-1)

    REGULARIZERS[name].discriminator(penalty_inputs(spy, real, fake))
    jax.effects_barrier()
    return seen[0]


def test_gradient_penalties_are_evaluated_at_the_published_points():
    real, fake = jnp.zeros((400, 2)), jnp.ones((400, 2))
    between = penalty_points("gradient_penalty", real, fake)
    assert (
        (between[:, 0] == between[:, 1]).all()
        and 0 <= between.min() < 0.05
        and 0.95 < between.max() <= 1
    )
    assert between[:, 0].mean() == pytest.approx(0.5, abs=0.05)
    spread = jax.random.normal(jax.random.key(0), (400, 2)) * 4
    near = penalty_points("dragan", spread, fake) - spread
    assert (
        near.min() >= 0
        and near.max() <= spread.std() / 2
        and near.mean() == pytest.approx(float(spread.std()) / 8, rel=0.15)
    )
    np.testing.assert_array_equal(penalty_points("r1", spread, fake), spread)
    np.testing.assert_array_equal(penalty_points("r2", spread, fake), fake)


def test_consistency_and_mode_seeking_match_manual_values():
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    sum_of = lambda x: x.sum((1, 2, 3))  # translated images lose pixels
    corner = lambda x: x[:, 0, 0, 0]
    at = penalty_inputs(sum_of, x, x + 1)
    for d in (sum_of, corner):
        moved = translation(x, at.key, at.index)
        np.testing.assert_allclose(
            REGULARIZERS["consistency"].discriminator(at._replace(d=d)),
            (d(x) - d(moved)) ** 2,
            rtol=1e-5,
        )
    # a translation by one pixel loses nothing
    inner = jnp.pad(x[:, 2:6, 2:6], ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(
        REGULARIZERS["balanced_consistency"].discriminator(penalty_inputs(sum_of, inner, inner)),
        0,
        atol=1e-8,
    )
    seeking = lambda g: REGULARIZERS["mode_seeking"].generator(at._replace(g=g, fake=g(at.z)))
    # samples differ by twice the difference of their noise
    assert seeking(lambda z: 2 * z) == pytest.approx(0.5, rel=1e-4)
    assert seeking(lambda z: 0 * z) == pytest.approx(1e5, rel=1e-3)  # collapsed

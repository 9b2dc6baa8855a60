"""Densities, divergences and schedules of autoencoders against SciPy and by hand."""

import math

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from aigc_jax.methods import schedules
from aigc_jax.methods.losses import latents as latent_losses
from aigc_jax.methods.losses import likelihoods

pytestmark = pytest.mark.unit

random = np.random.RandomState(0)


def test_likelihoods_match_scipy():
    x, a, b = random.randn(3, 5, 7)
    np.testing.assert_allclose(
        likelihoods.gaussian_log_prob(x, a, b, None),
        scipy.stats.norm.logpdf(x, a, np.exp(b / 2)),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        latent_losses.log_normal(x, a, b),
        scipy.stats.norm.logpdf(x, a, np.exp(b / 2)).sum(-1),
        rtol=1e-4,
    )
    bits = random.randint(2, size=(5, 7))
    np.testing.assert_allclose(
        likelihoods.bernoulli_log_prob(bits, a, None, 1),
        scipy.stats.bernoulli.logpmf(bits, 1 / (1 + np.exp(-a))),
        rtol=1e-4,
    )
    mixture = np.mean(
        [
            np.exp(scipy.stats.norm.logpdf(x, m, np.exp(v / 2)).sum(-1))
            for m, v in zip(a, b, strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(
        latent_losses.log_normal_mixture(x, a, b), np.log(mixture), rtol=1e-4
    )


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_discretized_logistic_sums_to_one(levels):
    with jax.enable_x64(True):
        values = np.linspace(-1, 1, levels + 1)[:, None]
        mean, log_scale = np.meshgrid([-1.5, -1.0, -0.2, 0.0, 0.999, 3.0], [-9.0, -5.0, -1.0, 2.0])
        mean, log_scale = mean.reshape(1, -1), log_scale.reshape(1, -1)
        log_mass = jax.jit(lambda *args: likelihoods.discretized_logistic_log_prob(*args, levels))
        mass = np.exp(log_mass(values, mean, log_scale))
        np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-9)
        scale = np.exp(log_scale)
        cdf = lambda x: scipy.stats.logistic.cdf(x, mean, scale)
        inside = cdf(values[1:-1] + 1 / levels) - cdf(values[1:-1] - 1 / levels)
        np.testing.assert_allclose(mass[1:-1], inside, atol=1e-12)
    values = np.linspace(-1, 1, levels + 1, dtype=np.float32)
    total = lambda m, s: likelihoods.discretized_logistic_log_prob(values, m, s, levels).sum()
    grads = jax.jit(jax.grad(total, (0, 1)))(0.3, -7.0)
    assert np.isfinite(grads).all()  # in float32 too


def test_kl_normal_matches_closed_form_and_monte_carlo():
    mean, log_var = random.randn(2, 3, 4)
    kl = latent_losses.kl_to_standard_normal(mean, log_var)
    assert latent_losses.kl_to_standard_normal(np.zeros(4), np.zeros(4)).tolist() == [0] * 4
    assert float(latent_losses.kl_to_standard_normal(3.0, math.log(4.0))) == pytest.approx(
        (9 + 4 - 1 - math.log(4)) / 2
    )
    z = mean + np.exp(log_var / 2) * random.randn(200_000, 3, 4)
    gap = scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)) - scipy.stats.norm.logpdf(z)
    error = gap.std(0) / math.sqrt(len(z))
    assert (np.abs(gap.mean(0) - kl) < 5 * error).all()


def test_free_bits_clamps_the_mean_kl_of_each_latent():
    kl = np.array([[0.1, 2.0], [0.3, 4.0]])
    assert float(latent_losses.kl_with_free_bits(kl, 0.0)) == pytest.approx(3.2) and float(
        latent_losses.kl_with_free_bits(kl, 0.5)
    ) == pytest.approx(3.5)
    assert jax.grad(lambda k: latent_losses.kl_with_free_bits(k, 0.5))(kl).tolist() == [
        [0, 0.5],
        [0, 0.5],
    ]


def test_total_correlation_matches_its_gaussian_closed_form():
    """Posteriors so narrow that q(z) is the distribution of their means: normal, with
    correlation rho, and TC = -log(1 - rho^2) / 2.
    """
    n, estimate = (
        2000,
        jax.jit(lambda z, mean, width: latent_losses.total_correlation(z, mean, width, 1)),
    )
    for rho in (0.0, 0.9):
        z = np.random.RandomState(3).multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
        width = np.full((n, 2), 2 * math.log(0.15))
        tc = float(estimate(z + 0.15 * np.random.RandomState(4).randn(n, 2), z, width))
        # `n` of 1, as if the batch were the data set: the estimate without its constant
        smooth = np.cov(z.T) + 0.15**2 * np.eye(2)
        exact = 0.5 * math.log(smooth[0, 0] * smooth[1, 1] / np.linalg.det(smooth))
        assert tc == pytest.approx(exact, abs=0.1)


def test_mmd_matches_pairwise_sums_and_separates_distributions():
    a, b = random.randn(300, 2), random.randn(300, 2)
    by_loops = 0.0
    for x, y, same in ((a[:20], a[:20], True), (b[:20], b[:20], True), (a[:20], b[:20], False)):
        values = [
            [4 / (4 + ((p - q) ** 2).sum()) for j, q in enumerate(y) if not (same and i == j)]
            for i, p in enumerate(x)
        ]
        by_loops += np.mean(values) if same else -2 * np.mean(values)
    assert float(latent_losses.squared_mmd(a[:20], b[:20])) == pytest.approx(by_loops, abs=1e-5)
    assert (
        abs(float(latent_losses.squared_mmd(a, b)))
        < 0.01
        < 0.3
        < float(latent_losses.squared_mmd(a, b + 2))
    )


def test_burda_schedule_and_annealing_follow_their_formulas():
    stages = [3**i for i in range(8)]
    for i, first in enumerate(np.cumsum([0, *stages[:-1]])):
        for epoch in (first, first + stages[i] - 1):
            assert float(schedules.SCHEDULES["burda"](epoch, 3280, 0)) == pytest.approx(
                10 ** (-i / 7)
            )
    rule = schedules.ANNEALING
    assert [float(rule["linear"](t, 4)) for t in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [float(rule["cyclical"](t, 8)) for t in (0, 1, 3, 7, 8, 11)] == [
        0.25,
        0.5,
        1,
        1,
        0.25,
        1,
    ]
    assert rule["constant"](3, 0) == 1

"""Statistics over seeds, against SciPy and closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from helpers import environment

from aigc_jax.sweeps import statistics

pytestmark = pytest.mark.unit

SCORES = np.random.RandomState(0).randn(4, 9)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 10, 17])
def test_interquartile_mean_is_the_trimmed_mean_of_scipy(n):
    x = np.random.RandomState(n).randn(3, n)
    trimmed = scipy.stats.trim_mean(x, 0.25, axis=-1)  # the definition in rliable
    assert np.allclose(statistics.interquartile_mean(x), trimmed, rtol=1e-12)
    assert np.allclose(statistics.compute_statistic(x.T, "iqm", 0), trimmed, rtol=1e-12)


def test_interquartile_mean_ignores_an_outlier():
    assert statistics.interquartile_mean([1.0, 2.0, 3.0, 1e9]) == 2.5
    assert statistics.compute_statistic([1.0, 2.0, 30.0], "median") == 2.0


@pytest.mark.parametrize("name", statistics.STATISTICS)
def test_bootstrap_agrees_with_scipy(name):
    values = np.random.RandomState(1).randn(30)
    mine = statistics.bootstrap_interval(values, name, num_resamples=20_000)
    other = scipy.stats.bootstrap(
        (values,),
        lambda x, axis: statistics.compute_statistic(x, name, axis),
        n_resamples=20_000,
        method="percentile",
        vectorized=True,
    ).confidence_interval
    width = other.high - other.low
    assert np.allclose(mine, other, atol=0.05 * width)


def test_bootstrap_of_two_values_is_their_range_and_of_one_the_value():
    # the mean of a resample is an end with probability 1/4 each: beyond the 2.5 % tails
    assert statistics.bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)
    assert statistics.bootstrap_interval([5.0]) == (5.0, 5.0)


def test_bootstrap_is_seeded_and_shares_resamples_over_steps():
    low, high = statistics.bootstrap_interval(SCORES)
    assert low.shape == high.shape == (4,)
    assert np.array_equal(low, statistics.bootstrap_interval(SCORES)[0])
    assert not np.array_equal(low, statistics.bootstrap_interval(SCORES, seed=1)[0])
    for i in range(4):
        assert statistics.bootstrap_interval(SCORES[i])[0] == low[i]
    # equivariance: the interval of a shifted and scaled set is shifted and scaled
    assert np.allclose(statistics.bootstrap_interval(3 + 2 * SCORES)[0], 3 + 2 * low)


def test_intervals_are_those_of_their_formulas():
    x, n = SCORES[0], SCORES.shape[1]
    mean, s = x.mean(), x.std(ddof=1)
    assert np.allclose(statistics.compute_interval(x, interval="se"), (mean - s / 3, mean + s / 3))
    assert np.allclose(statistics.compute_interval(x, interval="sd"), (mean - s, mean + s))
    student = scipy.stats.t.interval(0.95, n - 1, mean, scipy.stats.sem(x))
    assert np.allclose(statistics.compute_interval(x, interval="student"), student)
    assert statistics.compute_interval(x, "iqm", "bootstrap") == statistics.bootstrap_interval(
        x, "iqm"
    )
    assert statistics.compute_interval(x[:1]) is None


def test_holm_adjusts_the_example_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04: 0.04, 0.06, max(0.06, 0.06), max(0.06, 0.04)
    assert np.allclose(statistics.adjust_holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert statistics.adjust_holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.adjust_holm([0.2]) == [0.2] and statistics.adjust_holm([]) == []


def test_power_is_that_of_the_tables_and_of_simulation():
    # Cohen 1988; G*Power 3.1: matched pairs, two-sided, alpha 0.05, power 0.8
    assert [statistics.find_n_for_power(d) for d in (0.2, 0.5, 0.8)] == [199, 34, 15]
    assert statistics.find_n_for_power(-0.5) == 34
    x = 0.5 + np.random.RandomState(0).randn(20_000, 34)
    p = scipy.stats.ttest_1samp(x, 0, axis=1).pvalue
    assert abs(np.mean(p < 0.05) - statistics.compute_power(0.5, 34)) < 0.01
    assert statistics.compute_power(0.0, 10) == pytest.approx(0.05)


def test_n_for_power_of_extreme_effects():
    assert statistics.find_n_for_power(math.inf) == 2
    assert statistics.find_n_for_power(0.0) is None
    assert statistics.find_n_for_power(math.nan) is None
    found = [statistics.find_n_for_power(10.0**k) for k in (-2, -1, 0, 1, 2, 4)]
    assert found == sorted(found, reverse=True) and found[-1] == 2
    assert found[0] == pytest.approx(2.8016**2 * 1e4, rel=1e-3)


def make_rows(values) -> list[dict]:
    """Rows of {arm: {seed: value}}, with an earlier row and one of another split."""
    return [
        {"trial": f"{arm}{seed}", "hp.lr": arm, "seed": seed, "step": step, "split": split}
        | {"loss": value if (step, split) == (8, "test") else 99.0}
        for arm, own in values.items()
        for seed, value in own.items()
        for step, split in ((0, "test"), (8, "valid"), (8, "test"))
    ]


def test_paired_differences_are_those_of_scipy():
    random = np.random.RandomState(3)
    base = dict(enumerate(random.randn(6)))
    values = {
        arm: {i: base[i] + shift + 0.3 * random.randn() for i in base}
        for arm, shift in ((1.0, 0.0), (2.0, 0.4), (3.0, -0.2))
    } | {0.0: base}
    records = statistics.paired_differences(make_rows(values), "test/loss", (0.0,), ["hp.lr"])
    assert [r.arm for r in records] == [(1.0,), (2.0,), (3.0,)] and {r.n for r in records} == {6}
    for record in records:
        own = values[record.arm[0]]
        result = scipy.stats.ttest_rel(list(own.values()), list(base.values()))
        low, high = result.confidence_interval(0.95)
        assert np.allclose(
            record[1:4], (np.mean(list(own.values())) - np.mean(list(base.values())), low, high)
        )
        assert record.p == pytest.approx(result.pvalue)
        d = np.array(list(own.values())) - np.array(list(base.values()))
        assert record.n_for_power == statistics.find_n_for_power(d.mean() / d.std(ddof=1))
    assert [r.p_holm for r in records] == statistics.adjust_holm([r.p for r in records])


def test_only_common_seeds_are_paired():
    values = {
        "base": {0: 1.0, 1: 2.0, 2: 4.0, 5: 1.0},
        "few": {1: 3.0, 2: 6.0, 9: 0.0},
        "one": {0: 5.0},
        "none": {7: 1.0},
        "nan": {0: math.nan, 1: 2.5, 2: 4.5},
    }
    few, one, none, nan = statistics.paired_differences(
        make_rows(values), "test/loss", ("base",), ["hp.lr"]
    )
    assert (few.n, few.mean) == (2, 1.5)
    assert one == (("one",), 4.0, None, None, 1, None, None, None)
    assert none == (("none",), None, None, None, 0, None, None, None)
    assert nan[1:] == (0.5, None, None, 2, None, None, None), "equal differences: no deviation"
    with pytest.raises(KeyError):
        statistics.paired_differences(make_rows(values), "test/loss", ("other",), ["hp.lr"])


def test_differences_of_two_baselines_are_computed_once(monkeypatch):
    """b - a is -(a - b) with the same p and n, and Holm's correction of each baseline
    is that of its own arms.
    """
    random = np.random.RandomState(5)
    values = {(arm,): dict(enumerate(random.randn(4) + arm)) for arm in range(4)}
    values |= {("one",): {0: 1.0}, ("none",): {9: 1.0}, ("equal",): dict(values[0,])}
    alone = [statistics.compare_arms(values, baseline) for baseline in values]
    compared, compare = [], statistics._compare_pairs
    monkeypatch.setattr(
        statistics, "_compare_pairs", lambda *pairs: compared.append(pairs) or compare(*pairs)
    )
    found = statistics.compare_to_baselines(values, list(values))
    assert found == alone and len(compared) == 7 * 6 / 2
    ends = [(-r.mean, -r.high, -r.low) for r in found[0] if r.arm in [(1,), (2,)]]
    assert ends == [next(r[1:4] for r in found[i] if r.arm == (0,)) for i in (1, 2)]
    assert not any(math.copysign(1, r.mean) < 0 for line in found for r in line if r.mean == 0)


def test_equal_arms_do_not_differ():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 2.0}}
    (record,) = statistics.compare_arms({(k,): v for k, v in values.items()}, ("a",))
    assert record == (("b",), 0.0, None, None, 2, None, None, None)


def test_differences_without_variance_have_no_p_and_do_not_count_for_holm():
    """Also those that are equal up to the rounding of their values."""
    values = {"a": {0: 0.1, 1: 0.2, 2: 0.3}, "b": {0: 0.3, 1: 0.4, 2: 0.5}, "c": {0: 1, 1: 3, 2: 4}}
    shifted, other = statistics.compare_arms({(k,): v for k, v in values.items()}, ("a",))
    assert len({values["b"][i] - values["a"][i] for i in range(3)}) > 1
    assert shifted.is_without_variance and shifted[2:] == (None, None, 3, None, None, None)
    assert shifted.mean == pytest.approx(0.2)
    assert not other.is_without_variance and other.p_holm == other.p < 0.2


def test_statistics_import_neither_jax_nor_scipy():
    program = (
        "import sys; from aigc_jax.sweeps import statistics; "
        "print([m for m in ('jax', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment()
    )
    assert out.stdout.strip() == "[]", out.stderr

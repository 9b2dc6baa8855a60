"""Statistics over seeds: centres, intervals, and paired differences to a baseline.

Pure functions of numbers and rows. An arm is a combination of varied values, whose
trials differ only in the seed. SciPy is imported where a function needs it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95  # of the intervals
POWER = 0.8  # of the n that is printed beside a difference
RESAMPLES = 2000  # of the bootstrap
MOST_SEEDS = 1_000_000  # a larger n for 80 % power is not searched
DASH = "\u2013"  # in place of a p that does not exist
NO_VARIANCE = "all n differences are equal, without the variance that a test needs"
# What a line or a cell shows -> what table and figure call it.
STATISTICS = {"mean": "mean", "median": "median", "iqm": "interquartile mean"}
# What an error bar shows -> what table and figure call it.
INTERVALS = {
    "se": "standard error",
    "sd": "standard deviation",
    "student": "95 % interval, Student's t",
    "bootstrap": "95 % interval, percentile bootstrap",
}


class PairedDifference(NamedTuple):
    """The difference of an arm to the baseline, paired by seed.

    Attributes:
      arm: values of the varied keys.
      mean: mean over the common seeds of value - baseline's value; None without any.
      low: lower end of the 95 % interval by Student's t; None for n < 2 and without
        variance.
      high: its upper end.
      n: number of common seeds with a finite value of both.
      p: of the two-sided paired t test; None for n < 2 and without variance.
      p_holm: p with Holm's correction over all arms that have a p.
      n_for_power: seeds for 80 % power at this difference and its standard deviation;
        None where p is None, or no number up to MOST_SEEDS suffices.
    """

    arm: tuple
    mean: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    p_holm: float | None
    n_for_power: int | None

    @property
    def is_without_variance(self) -> bool:
        """Whether all of several differences are equal, so that they have no test."""
        return self.n > 1 and self.p is None


def interquartile_mean(values: Any, axis: int = -1) -> Any:  # [..., n] -> [...]
    """Return the mean of the middle half of the values: floor(n / 4) of the smallest
    and as many of the largest are left out (the IQM of Agarwal et al. 2021, Deep RL at
    the Edge of the Statistical Precipice, section 4.3; `rliable`). For n < 4 it is the
    mean.
    """
    values = np.sort(np.asarray(values, np.float64), axis=axis)
    n = values.shape[axis]
    return np.take(values, range(n // 4, n - n // 4), axis=axis).mean(axis)


def compute_statistic(values: Any, statistic: str = "mean", axis: int = -1) -> Any:
    """Return the mean, median or interquartile mean ("iqm") along an axis."""
    functions: dict[str, Any] = dict(mean=np.mean, median=np.median, iqm=interquartile_mean)
    return functions[statistic](np.asarray(values, np.float64), axis=axis)


def bootstrap_interval(
    values: Any,
    statistic: str = "mean",
    confidence: float = CONFIDENCE,
    num_resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Any, Any]:  # [..., n] -> [...], [...]
    """Return the percentile bootstrap interval of a statistic along the last axis.

    The (1 - confidence) / 2 and (1 + confidence) / 2 quantiles of the statistic of
    resamples of size n with replacement (Efron 1979; Agarwal et al. 2021, section 4.1,
    for the scores of one task). All leading axes share the resamples, so that a band
    over steps resamples trials. For few values, its coverage is below the nominal
    one.

    Args:
      values: [..., n], n of at least 1.
      statistic: a key of STATISTICS.
      confidence: the nominal coverage.
      num_resamples: number of resamples.
      seed: seed of the resamples; the same seed gives the same interval.
    """
    values = np.asarray(values, np.float64)
    n = values.shape[-1]
    chosen = np.random.default_rng(seed).integers(0, n, (num_resamples, n))
    # One leading row at a time: memory stays that of a single bootstrap.
    rows = values.reshape(-1, n)
    resampled = [compute_statistic(row[chosen], statistic) for row in rows]
    tail = (1 - confidence) / 2
    ends = np.quantile(np.array(resampled), (tail, 1 - tail), axis=1)
    low, high = ends.reshape(2, *values.shape[:-1])
    return low, high


def compute_interval(
    values: Any, statistic: str = "mean", interval: str = "se"
) -> tuple[Any, Any] | None:  # [..., n] -> ends [...], [...]; None for n < 2
    """Return the lower and upper end of an error bar along the last axis.

    "se": mean -+ s / sqrt(n); "sd": mean -+ s, with s the standard deviation of n - 1
    degrees of freedom; "student": mean -+ t s / sqrt(n), with t the 97.5 % quantile of
    Student's distribution of n - 1 degrees of freedom; "bootstrap":
    `bootstrap_interval` of the statistic. None for fewer than two values.

    Args:
      values: [..., n].
      statistic: a key of STATISTICS; all but "mean" go with "bootstrap" alone.
      interval: a key of INTERVALS.
    """
    values = np.asarray(values, np.float64)
    n = values.shape[-1]
    if n < 2:
        return None
    if interval == "bootstrap":
        return bootstrap_interval(values, statistic)
    mean, half = values.mean(-1), values.std(-1, ddof=1)
    if interval != "sd":
        half = half / math.sqrt(n)
    if interval == "student":
        half = half * student_quantile(n - 1)
    return mean - half, mean + half


def student_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the quantile t of Student's distribution with P(|T| <= t) = confidence."""
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))


def adjust_holm(p_values: Sequence[float]) -> list[float]:  # in the order of p_values
    """Return p values with Holm's step-down correction (Holm 1979): of the sorted
    p_(1) <= ... <= p_(m), max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    order = np.argsort(p_values, kind="stable")
    sorted_p = np.asarray(p_values, np.float64)[order]
    factors = np.arange(len(sorted_p), 0, -1)
    adjusted = np.maximum.accumulate(np.minimum(1.0, factors * sorted_p))
    out = np.empty_like(adjusted)
    out[order] = adjusted
    return out.tolist()


def compute_power(effect: float, n: int, alpha: float = 1 - CONFIDENCE) -> float:
    """Return the power of the two-sided paired t test at level alpha.

    P(|T| > t), with t the critical value of n - 1 degrees of freedom and T noncentral
    with effect sqrt(n) (Cohen 1988, section 2.2).

    Args:
      effect: mean of the differences by their standard deviation, Cohen's d_z.
      n: number of pairs, at least 2.
      alpha: level of the test.
    """
    from scipy.stats import nct

    critical, shift = student_quantile(n - 1, 1 - alpha), abs(effect) * math.sqrt(n)
    power = nct.sf(critical, n - 1, shift) + nct.cdf(-critical, n - 1, shift)
    return 1.0 if math.isnan(power) else float(power)  # nan: of a shift past its range


def find_n_for_power(effect: float, power: float = POWER) -> int | None:
    """Return the smallest number of pairs, at least 2, with which the paired t test has
    this power (`compute_power`); None if MOST_SEEDS do not suffice.

    Args:
      effect: mean of the differences by their standard deviation; may be infinite.
      power: such as 0.8.
    """
    effect = abs(effect)
    if math.isinf(effect):
        return 2
    # the approximation by the normal distribution, below the n of the t test
    low = 2.8016 / math.sqrt(MOST_SEEDS)
    if math.isnan(effect) or effect < low:
        return None
    few, many = 1, 2
    while compute_power(effect, many) < power:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if compute_power(effect, middle) >= power else (middle, many)
    return many


def final_values(
    rows: Iterable[dict], metric: str, varied_keys: Sequence[str]
) -> dict[tuple, dict[int, float]]:  # {arm: {seed: value}}
    """Return {values of the varied keys: {seed: value}} of the last row of each trial
    in the metric's split; values that are missing or not finite are left out.

    Args:
      rows: rows {trial, varied keys, seed, step, split, values}. Rows of trials that
        are not comparable must not be among them.
      metric: "split/name".
      varied_keys: the varied keys, except the seed.
    """
    split, _, name = metric.partition("/")
    last = {row["trial"]: row for row in rows if row["split"] == split}
    out: dict[tuple, dict[int, float]] = {}
    for row in last.values():
        own = out.setdefault(tuple(row.get(key) for key in varied_keys), {})
        value = row.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            own[row["seed"]] = float(value)
    return out


def paired_differences(
    rows: Iterable[dict], metric: str, baseline: tuple, varied_keys: Sequence[str]
) -> list[PairedDifference]:
    """Return the differences of all other arms to the baseline, paired by seed.

    Of the differences d_i of n common seeds with mean d and standard deviation s, the
    interval is d -+ t s / sqrt(n) and the test statistic d sqrt(n) / s, both with
    Student's t of n - 1 degrees of freedom (Student 1908). p is that of
    `scipy.stats.ttest_rel`; Holm's correction is over the arms that have a p. n for
    80 % power assumes that the true difference and standard deviation are d and s, as
    far as they are known from n seeds.

    Args:
      rows: as those of `final_values`.
      metric: "split/name".
      baseline: the values of the varied keys of the baseline.
      varied_keys: the varied keys, except the seed.

    Raises:
      KeyError: no trial of the baseline has a row in the metric's split.
    """
    return compare_arms(final_values(rows, metric, varied_keys), baseline)


def compare_arms(
    values: Mapping[tuple, Mapping[int, float]], baseline: tuple
) -> list[PairedDifference]:  # in the order of the arms
    """Return the `paired_differences` of {arm: {seed: value}}."""
    return compare_to_baselines(values, [baseline])[0]


def compare_to_baselines(
    values: Mapping[tuple, Mapping[int, float]], baselines: Sequence[tuple]
) -> list[list[PairedDifference]]:  # for each baseline, in the order of the arms
    """Return the `paired_differences` of {arm: {seed: value}} to each baseline. Two
    baselines are compared once: the difference b - a is -(a - b), with the same p.
    """
    found: dict[tuple[tuple, tuple], PairedDifference] = {}
    for baseline in baselines:
        reference = values[baseline]
        for arm, own in values.items():
            if (baseline, arm) in found:
                found[arm, baseline] = _negate(found[baseline, arm], arm)
            elif arm != baseline:
                pairs = [(own[seed], reference[seed]) for seed in own if seed in reference]
                found[arm, baseline] = _compare_pairs(arm, pairs)
    return [_correct([found[a, b] for a in values if a != b]) for b in baselines]


def _negate(record: PairedDifference, arm: tuple) -> PairedDifference:
    """Return the record of the baseline of `record`, `arm`, to the arm of `record`."""
    if record.mean is None:
        return record._replace(arm=arm)
    if record.low is None or record.high is None:
        return record._replace(arm=arm, mean=0 - record.mean)  # no -0.0
    return record._replace(arm=arm, mean=0 - record.mean, low=0 - record.high, high=0 - record.low)


def _correct(records: list[PairedDifference]) -> list[PairedDifference]:
    """Return the records of a baseline with Holm's correction."""
    adjusted = iter(adjust_holm([record.p for record in records if record.p is not None]))
    return [r if r.p is None else r._replace(p_holm=next(adjusted)) for r in records]


def _compare_pairs(arm: tuple, pairs: Sequence[tuple[float, float]]) -> PairedDifference:
    """Return the record of an arm, without Holm's correction. Differences that are
    equal up to the rounding of their values have no variance.
    """
    n, values = len(pairs), np.asarray(pairs, np.float64).reshape(-1, 2)
    d = values[:, 0] - values[:, 1]
    if n < 2:
        mean = float(d.mean()) if n else None
        return PairedDifference(arm, mean, None, None, n, None, None, None)
    mean, deviation = float(d.mean()), float(d.std(ddof=1))
    if deviation <= 8 * np.finfo(np.float64).eps * np.abs(values).max():
        return PairedDifference(arm, mean, None, None, n, None, None, None)
    half = student_quantile(n - 1) * deviation / math.sqrt(n)
    p = _student_p(mean * math.sqrt(n) / deviation, n - 1)
    needed = find_n_for_power(mean / deviation)
    return PairedDifference(arm, mean, mean - half, mean + half, n, p, None, needed)


def _student_p(statistic: float, degrees: int) -> float:
    """Return the two-sided p value of a t statistic."""
    from scipy.stats import t

    return float(2 * t.sf(abs(statistic), degrees))

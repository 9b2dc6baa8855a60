"""Numbers, sizes and durations as a person writes them."""

import math

import pytest

from aigc_jax.utils.quantities import (
    format_count,
    format_duration,
    format_number,
    format_si,
    format_size,
)

pytestmark = pytest.mark.unit


def test_counts_have_separators_and_a_plural():
    assert [format_count(n) for n in (0, 999, 12_345, -1_000)] == ["0", "999", "12,345", "-1,000"]
    assert [format_count(n, "step") for n in (0, 1, 2, 12_345)] == [
        "0 steps",
        "1 step",
        "2 steps",
        "12,345 steps",
    ]


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0"),
        (0.693147, "0.6931"),
        (103.42, "103.4"),
        (999.4, "999.4"),
        (999.96, "1,000"),
        (12_345.6, "12,346"),
        (-12_345.6, "-12,346"),
        (123_456_789.0, "123,456,789"),
        (1.25e9, "1.25e+09"),
        (1e-7, "1e-07"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_four_significant_digits(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (1_234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),  # rounded before the prefix is chosen
        (2.1e9, "2.1 GB"),
        (469_762_048, "470 MB"),
        (1.5e21, "1,500 EB"),
        (math.inf, "inf B"),
    ],
)
def test_sizes_have_three_digits_and_a_decimal_prefix(value, text):
    assert format_size(value) == text


def test_si_prefixes_reach_below_one():
    values = (4.2e-5, 0.0718, 1.5, 999.6e-6, 3e-10)
    assert [format_si(v, "s") for v in values] == ["42 us", "71.8 ms", "1.5 s", "1 ms", "0.3 ns"]
    assert format_si(1.21e12, "") == "1.21 T" and format_si(-2_500, "B") == "-2.5 kB"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 m 00 s"),
        (187, "3 m 07 s"),
        (3599, "59 m 59 s"),
        (3600, "1 h 00 m"),
        (7_385, "2 h 03 m"),
        (86_400, "1 d 00 h"),
        (1000 * 86_400 + 4 * 3600, "1,000 d 04 h"),
        (math.inf, "inf s"),
        (math.nan, "nan s"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert format_duration(seconds) == text

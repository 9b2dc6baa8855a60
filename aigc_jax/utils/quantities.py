"""Numbers, sizes and durations as a person writes them: 12,345 steps; 2.1 GB;
3 m 07 s.
"""

import math

PREFIXES = "num kMGTPE"  # of 10^-9, 10^-6, ..., 10^18; a space: none
METRIC_UNITS = dict.fromkeys(
    ("neg_elbo", "kl", "reconstruction", "nll", "nll_error", "neg_iwae"), "nats"
) | dict(bits_per_byte="bits/byte", bits_per_character="bits/character", bits_per_dim="bits/dim")


def label_metric(metric: str) -> str:  # "valid neg_elbo (nats)"
    """Return "SPLIT NAME" or "NAME" of a metric, with its unit if it has one."""
    name = metric.split(" ")[-1]
    return f"{metric} ({METRIC_UNITS[name]})" if name in METRIC_UNITS else metric


def format_count(count: int, noun: str = "") -> str:  # "12,345 steps", "1 step"
    """Format an integer with separators of thousands.

    Args:
      count: the integer.
      noun: singular of the counted things, which is appended, with an s unless the
        count is 1; "": only the number.
    """
    return f"{count:,}" + (f" {noun}{'s' * (count != 1)}" if noun else "")


def format_number(value: float) -> str:  # "0.6931", "103.4", "12,346", "1.2e+09"
    """Format a number with four significant digits, from 1,000 to 10^9 as an integer
    with separators of thousands.
    """
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e9 else f"{value:.4g}"


def format_devices(count: int, platform: str, kind: str) -> str:  # "2 x NVIDIA H100 (gpu)"
    """Return the number, kind and platform of devices: "2 CPU devices" where the kind
    has no name of its own.
    """
    if kind.lower() == platform.lower():
        return format_count(count, f"{platform.upper()} device")
    return f"{count:,} x {kind} ({platform})"


def format_si(value: float, unit: str) -> str:  # "6.74 GB", "42 us", "1.21 T"
    """Format a number with three significant digits and an SI prefix.

    Args:
      value: the number, in the unit.
      unit: such as "B" or "s"; "": the prefix alone.
    """
    if not value or not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    rounded = float(f"{value:.2e}")
    power = math.floor(math.log10(abs(rounded))) // 3
    power = max(-3, min(power, len(PREFIXES) - 4))
    prefix = PREFIXES[power + 3].strip()
    return f"{rounded / 1000.0**power:,.4g} {prefix}{unit}".rstrip()


def format_size(num_bytes: float) -> str:  # "2.1 GB"
    """Format a number of bytes, with decimal prefixes: 1 kB is 1,000 bytes."""
    return format_si(num_bytes, "B")


def format_duration(seconds: float) -> str:  # "7 s", "3 m 07 s", "1 h 02 m", "2 d 03 h"
    """Format seconds in the two largest units that are not zero; less than a second is
    0 s.
    """
    if not math.isfinite(seconds):
        return f"{seconds:g} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"

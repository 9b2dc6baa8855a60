"""Ticks of logarithmic axes: few, with plain numbers; minor ticks have no label."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TICKS = 7
# Multiples of powers of ten: the first of them with few enough ticks for the axis.
MULTIPLES = (tuple(range(1, 10)), (1, 2, 5), (1, 3), (1,))


def format_plain(value: float) -> str:  # "0.001", "2,000", "20k", "1M", "1e-5"
    """Return a number in few characters; one with a prefix has no power of ten."""
    if not value:
        return "0"
    for power, prefix in ((1e6, "M"), (1e3, "k")):
        if 10_000 <= abs(value) < 1e9 and abs(value) >= power:
            return f"{value / power:.10g}{prefix}"
    if 1e-3 <= abs(value) < 10_000:
        return f"{value:,.10g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def count_multiples(multiples: tuple[int, ...], low: float, high: float) -> float:
    """Return how many multiples of powers of ten are between two numbers."""
    if low <= 0:
        return math.inf
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return sum(low <= m * 10.0**power <= high for power in powers for m in multiples)


def choose_multiples(low: float, high: float, most: int) -> tuple[int, ...]:
    """Return the densest of MULTIPLES with at most `most` ticks between two numbers."""
    few = (m for m in MULTIPLES if count_multiples(m, low, high) <= most)
    return next(few, MULTIPLES[-1])


def label_log_axis(axis: Any) -> None:
    """Set the ticks of one axis of matplotlib; ticks that a figure has chosen itself
    remain.
    """
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullFormatter,
    )

    axis.set_minor_formatter(NullFormatter())
    if isinstance(axis.get_major_locator(), FixedLocator):
        return
    low, high = sorted(axis.get_view_interval())
    most = min(MOST_TICKS, axis.get_tick_space())
    subs = choose_multiples(low, high, most)
    is_narrow = count_multiples(MULTIPLES[0], low, high) < 2  # such as from 24 to 28
    axis.set_major_locator(
        MaxNLocator(most, steps=[1, 2, 5, 10])
        if is_narrow
        else LogLocator(subs=subs, numticks=most)
    )
    axis.set_major_formatter(FuncFormatter(lambda value, place: format_plain(value)))


def label_log_axes(figure: "Figure") -> None:
    """Set the ticks of all logarithmic axes of a figure."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                label_log_axis(axis)

"""Layout of figures: units, ticks of logarithmic axes, labels that do not overlap."""

import pytest
from matplotlib.figure import Figure

from aigc_jax.media.log_axes import MOST_TICKS, format_plain, label_log_axes
from aigc_jax.sweeps import differences, plots
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.presentation import make_presentation
from aigc_jax.sweeps.styles import STYLES, separate_labels

pytestmark = pytest.mark.unit


def results_of(metric):
    rows = [
        {"trial": f"{arm}{seed}", "beta": arm, "seed": seed, "step": step, "split": split}
        | {metric: arm + seed * arm + step}
        for arm in (0.5, 1)
        for seed in (0, 1)
        for step in (0, 8)
        for split in ("valid", "test")
    ]
    trials = [
        {"trial": f"{arm}{seed}", "beta": arm, "seed": seed, "status": "done"}
        for arm in (0.5, 1)
        for seed in (0, 1)
    ]
    return Results(rows, trials, ["beta"])


@pytest.mark.parametrize("metric, unit", [("neg_elbo", " (nats)"), ("accuracy", "")])
def test_axes_carry_the_unit_of_the_metric(metric, unit):
    results, axes = results_of(metric), Figure().subplots()
    plots.draw_curves(results, f"valid/{metric}", axes)
    assert axes.get_ylabel() == f"valid {metric}{unit}" and axes.get_xlabel() == "training step"
    view, axes = make_presentation(baseline="1"), Figure().subplots()
    differences.draw_differences(
        differences.compute_differences(results._replace(view=view, metric=f"test/{metric}")), axes
    )
    assert axes.get_xlabel() == f"difference of test {metric}{unit}"


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (1e-3, 1e2, ["0.001", "0.01", "0.1", "1", "10", "100"]),
        (3, 40, ["5", "10", "20"]),
        (0.03, 20, ["0.03", "0.1", "0.3", "1", "3", "10"]),
        (1e-9, 1e9, []),
        (24, 70, ["30", "40", "50", "60", "70"]),
        (24, 28, ["24", "25", "26", "27", "28"]),
    ],
)
def test_log_axes_have_few_plain_labels_and_no_minor_ones(low, high, expected):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([low, high], [low, high])
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    label_log_axes(figure)
    figure.draw_without_rendering()
    inside = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    shown = [text.get_text() for text in inside]
    assert shown == expected or not expected
    assert 1 < len(shown) <= MOST_TICKS + 1 and not any("$" in text for text in shown)
    assert not any(text.get_text() for text in axes.get_xticklabels(minor=True))


def test_numbers_of_log_axes_are_plain():
    numbers = (0, 0.001, 0.05, 1, 2000, 20000, 5e5, 1e6, 2e-5, 1e12)
    expected = ["0", "0.001", "0.05", "1", "2,000", "20k", "500k", "1M", "2e-5", "1e12"]
    assert list(map(format_plain, numbers)) == expected


def test_labels_of_near_points_do_not_overlap():
    figure = Figure()
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 100))
    for i, value in enumerate((50, 50.5, 51, 51.5)):
        axes.annotate(f"{i}.5", (value, value), textcoords="offset points", xytext=(5, 4))
    separate_labels(figure)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert axes.texts[0].xyann == (5, 4), "the first remains"


def test_notes_of_a_paper_are_as_large_as_those_of_a_screen():
    assert STYLES["paper"].note_size >= STYLES["plain"].note_size == 7

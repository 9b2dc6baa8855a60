"""Curves: panels, lines, axes and pixels for given rows."""

import math

import numpy as np
import pytest
from PIL import Image

from aigc_jax.media import curves

pytestmark = pytest.mark.unit

ROWS = [
    {"step": 1, "split": "train", "loss": 3.0, "slope": 1.0},
    {"step": 1, "split": "valid", "loss": 0.02},
    {"step": 2, "split": "train", "loss": 2.0, "slope": None},
    {"step": 2, "split": "valid", "loss": 0.01, "share": -0.5},
]


def test_curves_have_a_panel_per_value_and_a_line_per_split():
    loss, slope, share = curves.collect_panels(ROWS)
    assert [panel.name for panel in (loss, slope, share)] == ["loss", "slope", "share"]
    assert loss.lines == dict(train=[(1, 3), (2, 2)], valid=[(1, 0.02), (2, 0.01)])
    assert slope.lines == dict(train=[(1, 1)]) and share.lines == dict(valid=[(2, -0.5)])
    scales = [curves.make_axes(panel)[1].is_log for panel in (loss, slope, share)]
    assert scales == [True, False, False]


def test_points_have_the_colour_of_their_split_at_their_place(tmp_path):
    curves.save_curves(tmp_path / "curves.png", ROWS, {"Software": "it", "step": 2})
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.array(image)
        assert image.size == (1260, 280) and image.text["step"] == "2"
    for i, panel in enumerate(curves.collect_panels(ROWS)):
        x_axis, y_axis = curves.make_axes(panel)
        for split, points in panel.lines.items():
            for step, value in points:
                x, y = round(x_axis.place(step)), round(y_axis.place(value))
                assert tuple(pixels[y, i * curves.CELL[0] + x]) == curves.COLOURS[split]


@pytest.mark.parametrize("count, size", [(1, (420, 280)), (2, (840, 280)), (4, (1260, 560))])
def test_panels_are_in_rows_of_three_and_do_not_overlap(count, size):
    values = {name: 1.0 for name in "abcd"[:count]}
    rows = [{"step": s, "split": "train"} | values for s in (1, 2)]
    panels = curves.collect_panels(rows)
    sheet = curves.draw_panels(panels)
    assert sheet.shape == (*size[::-1], 3)
    # Each image is that of its panel alone, whose outermost pixels are white.
    for i, panel in enumerate(panels):
        alone, (y, x) = curves.draw_panel(panel), (i // 3 * 280, i % 3 * 420)
        assert np.array_equal(sheet[y : y + 280, x : x + 420], alone)
        edges = alone[0], alone[-1], alone[:, 0], alone[:, -1]
        assert all((edge == 255).all() for edge in edges)


def test_texts_fit_the_panel():
    wide = curves.Panel("m" * 200, dict(train=[(10**9, -123456.789), (2 * 10**9, -123456.788)]))
    image = curves.draw_panel(wide)
    assert (image[:, 0] == 255).all() and (image[:, -1] == 255).all()
    ticks = curves.make_axes(wide)[1].ticks
    names, base = curves.name_ticks(ticks, 54)
    assert names[0] == "+0" and base.endswith(" +") and len(set(names)) == len(ticks)
    for name, tick in zip(names, ticks, strict=True):
        assert float(base[:-2]) + float(name) == pytest.approx(tick, abs=1e-6)
    assert curves.shorten_to("loss", 100) == "loss"
    assert curves.shorten_to("m" * 200, 100).endswith("m...")


@pytest.mark.parametrize("seed", range(20))
def test_ticks_are_few_round_numbers_within_the_axis(seed):
    random = np.random.RandomState(seed)
    low = random.standard_normal() * 10.0 ** random.randint(-6, 7)
    high = low + 10.0 ** random.uniform(-2, 2) * abs(low)
    ticks = curves.choose_ticks(low, high)
    assert 2 <= len(ticks) <= curves.MOST_TICKS
    assert all(low <= tick <= high and len(f"{tick:.12g}") <= 12 for tick in ticks)
    assert all(float(f"{tick:.12g}") == tick for tick in ticks), "no rounding error is shown"
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    mantissa = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


def test_ticks_of_steps_are_integers():
    assert curves.choose_ticks(0.9, 2.1, is_integer=True) == (1, 2)
    assert curves.choose_ticks(-100, 2100, is_integer=True) == (0, 500, 1000, 1500, 2000)


def test_ticks_of_logarithmic_axes():
    assert curves.choose_log_ticks(0.5, 40) == (0.5, 1, 2, 5, 10, 20)
    assert curves.choose_log_ticks(0.001, 1000) == tuple(10.0**n for n in range(-3, 4))
    most = curves.choose_log_ticks(1e-20, 1e20)
    assert len(most) <= curves.MOST_TICKS and all(math.log10(t).is_integer() for t in most)


@pytest.mark.parametrize("value", [0.0, 2.0, -1e-12, 3e38])
def test_a_single_value_is_in_the_middle_of_its_axis(value):
    panel = curves.Panel("loss", dict(train=[(5, value), (6, value)]))
    _, y_axis = curves.make_axes(panel)
    middle = (y_axis.first + y_axis.last) / 2
    assert y_axis.place(value) == pytest.approx(middle, abs=1) and len(y_axis.ticks) >= 2


def test_values_that_are_not_finite_are_left_out(tmp_path):
    values = [1.0, math.nan, None, math.inf, 2.0]
    rows = [{"step": i, "split": "train", "loss": v} for i, v in enumerate(values)]
    (panel,) = curves.collect_panels(rows)
    assert panel.lines == dict(train=[(0, 1.0), (4, 2.0)])
    (empty,) = curves.collect_panels(rows[1:3])
    assert empty.lines == {} and curves.draw_panel(empty).shape == (280, 420, 3)


def test_rows_without_values_draw_nothing(tmp_path):
    curves.save_curves(tmp_path / "curves.png", [{"step": 1, "split": "train"}], {})
    assert not (tmp_path / "curves.png").exists()


def test_matplotlib_is_not_imported(tmp_path):
    import subprocess
    import sys

    from helpers import environment

    program = (
        "import sys; from pathlib import Path; from aigc_jax.media import curves\n"
        f"curves.save_curves(Path({str(tmp_path / 'c.png')!r}), {ROWS!r}, {{}})\n"
        "assert 'matplotlib' not in sys.modules and 'jax' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

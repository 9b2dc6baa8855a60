"""Curves: panels, lines and axes for given rows."""

import numpy as np
import pytest
from PIL import Image

from aigc_jax.media import plots

ROWS = [
    {"step": 1, "split": "train", "loss": 3.0, "slope": 1.0},
    {"step": 1, "split": "valid", "loss": 0.02},
    {"step": 2, "split": "train", "loss": 2.0, "slope": None},
    {"step": 2, "split": "valid", "loss": 0.01, "share": -0.5},
]


@pytest.fixture
def draw_curves(tmp_path, monkeypatch):
    """A function from rows to the axes of their curves."""
    figures, save = [], plots.save_figure
    monkeypatch.setattr(
        plots, "save_figure", lambda path, f, origin: (figures.append(f), save(path, f, origin))
    )

    def axes(rows):
        plots.save_curves(tmp_path / "curves.png", rows, {"Software": "it", "step": 2})
        return figures.pop().axes if figures else []

    return axes


def test_curves_have_a_panel_per_value_and_a_line_per_split(draw_curves, tmp_path):
    loss, slope, share = draw_curves(ROWS)
    assert [axes.get_title() for axes in (loss, slope, share)] == ["loss", "slope", "share"]
    lines = {line.get_label(): line.get_xydata() for line in loss.lines}
    assert np.array_equal(lines["train"], [(1, 3), (2, 2)])
    assert np.array_equal(lines["valid"], [(1, 0.02), (2, 0.01)])
    assert [line.get_xydata().tolist() for line in slope.lines] == [[[1, 1]]]
    assert [line.get_label() for line in share.lines] == ["valid"]
    assert (loss.get_yscale(), slope.get_yscale(), share.get_yscale()) == ("log", *["linear"] * 2)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1260, 280) and picture.text["step"] == "2"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_panels_do_not_overlap_and_fit_the_figure(draw_curves, tmp_path, count):
    values = "abcdefg"[:count]
    panels = draw_curves(
        [{"step": s, "split": "train"} | dict.fromkeys(values, s / 3) for s in (1, 2)]
    )
    figure = panels[0].figure
    drawn_at = [axes.get_tightbbox() for axes in panels]
    assert len(panels) == count
    assert all(
        a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        for i, a in enumerate(drawn_at)
        for b in drawn_at[:i]
    )
    width, height = figure.bbox.size
    assert all(a.x0 >= 0 and a.x1 <= width and a.y0 >= 0 and a.y1 <= height for a in drawn_at)


def test_rows_without_values_draw_nothing(draw_curves, tmp_path):
    assert draw_curves([{"step": 1, "split": "train"}]) == []
    assert not (tmp_path / "curves.png").exists()


def test_strips_of_separability_say_how_many_are_wrong():
    """Images beyond the errors are called the most alike, not misclassified."""
    scores = np.array([[-1.0, 2, 3, 4], [-3, -2, 1, 2]])
    names = plots.name_strips(scores)
    assert names[1] == "samples most like examples (2 of 4 are classified as examples)"
    assert names[2] == "examples most like samples (1 of 4 are classified as samples)"

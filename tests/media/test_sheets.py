"""Sheets: margins change no pixel of the images; names stand beside their rows."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers import environment
from PIL import Image

from aigc_jax.core.method import GridLabels
from aigc_jax.data.dataset import Spec
from aigc_jax.media import glyphs, images, latent_plots, plots, sample_files, sheets
from aigc_jax.media.sheets import Annotations

pytestmark = pytest.mark.unit

NAMED = GridLabels(("a", "b", "c"), "letter", ("first", "second"), "row")
WHITE, GREY = 255, 128


def random_images(*shape) -> np.ndarray:
    return np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "annotations",
    [
        Annotations("a title"),
        Annotations("two\nlines", NAMED),
        Annotations("", GridLabels(row_title="draw")),
        Annotations("", GridLabels(images=("x", "y"))),
        Annotations("a title that is wider than the grid of three small images " * 2, NAMED),
        Annotations("", NAMED._replace(has_ends=True), ["1.00"] * 5),
        Annotations("", NAMED._replace(columns=("a name that is too wide",) * 3)),
        Annotations("", NAMED._replace(column_title="a title of columns that is too wide")),
        Annotations("", None, ["a caption that is too wide"] * 5),
    ],
    ids=[
        *("title", "names", "numbers", "stacked", "wide", "ends and captions"),
        *("wide names", "wide title of columns", "wide captions"),
    ],
)
def test_margins_change_no_pixel_of_the_images(channels, annotations):
    x = random_images(5, 2, 8, 8, channels)
    sheet = sheets.make_sheet(x, 3, annotations)
    cells = images.to_uint8(x).reshape(5, 16, 8, channels).repeat(8, 1).repeat(8, 2)
    layout = images.lay_out_grid(
        (5, 16, 8, channels), 3, 2, sheets.LINE if annotations.captions else 0
    )
    margins = sheets.measure_margins(
        annotations, sheets.name_rows(annotations.labels, layout, 2), layout
    )
    for i, cell in enumerate(cells):
        y, x = layout.locate(i)
        y, x = y + margins.top, x + margins.left
        assert (sheet[y : y + 128, x : x + 64] == cell).all(), i
    height, width = layout.size
    assert sheet.shape[:2] == (
        margins.top + height + margins.bottom,
        margins.left + width + margins.right,
    )
    assert sheet.shape[2] == (3 if annotations.labels and annotations.labels.has_ends else channels)
    assert (sheet[[0, -1]] == WHITE).all() and (sheet[:, [0, 1, -1, -2]] == WHITE).all()
    assert (sheet[: margins.top] < WHITE).any() == bool(
        annotations.title or (annotations.labels and annotations.labels.columns)
    )


def test_sheet_without_annotations_is_the_grid():
    x = random_images(5, 1, 8, 8, 1)
    assert np.array_equal(sheets.make_sheet(x, 3), images.make_image_grid(x[:, 0], 3))


def test_names_stand_beside_their_rows_and_columns():
    x = random_images(6, 1, 56, 56, 1)
    layout = images.lay_out_grid((6, 56, 56, 1), 3)
    names = sheets.name_rows(NAMED, layout, 1)
    assert names == ["first", "second"]
    margins = sheets.measure_margins(Annotations("", NAMED), names, layout)
    ink = sheets.make_sheet(x, 3, Annotations("", NAMED))[..., 0] < 128
    for column in range(3):  # one name above the middle of each
        left = margins.left + 58 * column
        above = ink[sheets.LINE : margins.top, left : left + 56]
        assert above[:, 20:36].any() and not above[:, :20].any() and not above[:, 36:].any()
    for row in range(2):
        beside = ink[margins.top + 58 * row : margins.top + 58 * row + 56, 20 : margins.left]
        assert beside[20:36].any() and not beside[:16].any() and not beside[40:].any()


def test_rows_without_names_have_numbers_and_names_repeat():
    layout = images.lay_out_grid((7, 8, 8, 1), 2)
    assert sheets.name_rows(GridLabels(row_title="pair"), layout, 1) == ["1", "2", "3", "4"]
    assert sheets.name_rows(NAMED, layout, 1) == ["first", "second", "first", "second"]
    assert sheets.name_rows(GridLabels(images=("x", "y")), layout, 2) == ["x", "y"] * 4
    # channels that are drawn as images of their own are not what the names say
    assert sheets.name_rows(GridLabels(images=("x", "y")), layout, 4) == []


def test_ends_of_an_interpolation_are_framed_in_the_lines_between():
    x = np.ones((5, 1, 56, 56, 1), np.float32)  # white, the second row ends after two
    labels = GridLabels(has_ends=True)
    sheet = sheets.make_sheet(x, 3, Annotations("", labels))
    layout = images.lay_out_grid((5, 56, 56, 1), 3)
    margins = sheets.measure_margins(Annotations("", labels), [], layout)
    framed_at = (sheet == sheets.FRAME).all(-1)
    for cell, framed in enumerate((True, False, True, True, False)):
        y, x = layout.locate(cell)
        y, x = y + margins.top, x + margins.left
        top, left = framed_at[y - 2 : y, x : x + 56], framed_at[y : y + 56, x - 2 : x]
        assert top.all() == framed
        assert left.all() == (framed or cell in (1, 4)), "the right line of the first column"


def test_names_wider_than_their_columns_read_upwards():
    x = random_images(3, 1, 48, 48, 1)
    layout, title = images.lay_out_grid((3, 48, 48, 1), 3), "z"
    wide, narrow = (GridLabels((name, "b", "c"), title) for name in ("a wide name", "a"))
    assert layout.width == 48 and sheets.measure_columns(narrow, layout) == sheets.LINE
    height = sheets.measure_columns(wide, layout)
    assert height == sheets.measure_text("a wide name") > 50
    sheet = sheets.make_sheet(x, 3, Annotations("", wide))
    top = sheets.measure_margins(Annotations("", wide), [], layout).top
    left = sheets.measure_margins(Annotations("", wide), [], layout).left
    ink = sheet[sheets.LINE : top, :, 0] < 128
    for column in range(3):  # in the middle of each, and no wider than a line
        own = ink[:, left + 50 * column : left + 50 * column + 48]
        assert own[:, 16:32].any() and not own[:, :16].any() and not own[:, 32:].any()


def test_characters_without_a_glyph_are_escaped():
    """No empty boxes: Latin, Greek and Cyrillic are drawn, Chinese is escaped."""
    text = "caf\u00e9 \u03b1 \u0416"
    assert glyphs.escape_missing(text) == text
    assert glyphs.escape_missing("\u732b\n\U0001f9e0") == "\\u732b\n\\U0001f9e0"
    x = random_images(2, 1, 16, 16, 1)
    sheet = lambda title: sheets.make_sheet(x, 2, Annotations(title))
    assert (sheet("\u732b") != sheet("\u72d7")).any()  # equal boxes without the escapes
    figure = plots.make_figure(3, 3)
    axes = figure.subplots()
    axes.set_title("\u732b")
    axes.bar(["\u72d7", "b"], [1, 2])
    axes.set_xticks([0, 1], ["\u72d7", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a missing glyph
        glyphs.escape_figure(figure)
        figure.draw_without_rendering()
    assert axes.get_title() == "\\u732b"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["\\u72d7", "b"]


@pytest.mark.parametrize("side, scale", [(8, 8), (16, 4), (28, 2), (32, 2), (64, 1), (300, 1)])
def test_small_images_are_enlarged_by_whole_factors(side, scale):
    x = random_images(3, side, side, 1)
    grid = images.make_image_grid(x, 3)
    right = images.to_uint8(x[0]).repeat(scale, 0).repeat(scale, 1)
    assert (grid[: scale * side, : scale * side] == right).all()


def test_same_samples_give_the_same_bytes(tmp_path):
    spec, x = Spec("image", (8, 8, 1), 10), random_images(6, 8, 8, 1)
    for name in "ab":
        sample_files.save_samples_png(
            tmp_path / f"{name}.png", x, spec, {"step": "8"}, 3, Annotations("t", NAMED)
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as file:
        assert file.mode == "L" and file.text == {"step": "8"}


def test_image_sheets_do_not_import_matplotlib(tmp_path):
    program = (
        "import sys, numpy as np; from pathlib import Path; from aigc_jax.media import sheets, "
        "sample_files; from aigc_jax.data.dataset import Spec; "
        "sample_files.save_samples_png(Path(sys.argv[1]), np.zeros((4, 8, 8, 3)), "
        "Spec('image', (8, 8, 3), 9), {}, 2, sheets.Annotations('title')); "
        "print([m for m in ('matplotlib', 'sklearn') if m in sys.modules])"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "x.png")]
    out = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert out.stdout.strip() == "[]" and (tmp_path / "x.png").is_file(), out.stderr


# -- figures of latents, likelihoods and points


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], plots.save_figure

    def keep(path, figure, origin):
        figures.append(figure)
        save(path, figure, origin)

    for module in (plots, latent_plots):
        monkeypatch.setattr(module, "save_figure", keep)
    return figures


def test_many_latents_are_projected_to_their_principal_components():
    random = np.random.RandomState(0)
    x = random.randn(200, 6) * np.arange(1, 7) @ np.linalg.qr(random.randn(6, 6))[0]
    points, names = latent_plots.project_latents(x, x)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    assert np.allclose(np.abs(points), np.abs(u[:, :2] * s[:2]))
    share = s[0] ** 2 / (s**2).sum()
    assert names[0] == f"principal component 1 of 6 latents ({share:.0%} of the variance)"


def test_two_latents_are_drawn_as_they_are_and_one_with_its_deviation():
    x = np.random.RandomState(0).randn(9, 2)
    assert np.array_equal(latent_plots.project_latents(x, x)[0], x)
    points, names = latent_plots.project_latents(x[:, :1], np.ones((9, 1)))
    assert np.array_equal(points, np.stack([x[:, 0], np.ones(9)], 1))
    assert "deviation" in names[1]


@pytest.mark.parametrize("classes", [0, 3, 15, 47])
def test_latents_have_a_colour_and_a_line_of_the_legend_per_class(drawn, tmp_path, classes):
    x = np.random.RandomState(0).randn(100, 5)
    labels = np.arange(100) % classes if classes else None
    latent_plots.save_latents(tmp_path / "x.png", x, x, labels, {}, "title")
    (axes,) = drawn[0].axes
    assert axes.get_title() == "title" and "principal component 1" in axes.get_xlabel()
    colours = {tuple(points.get_facecolor()[0]) for points in axes.collections}
    assert len(colours) == len(axes.collections) == max(1, classes)
    assert (axes.get_legend() is None) == (not classes)
    if classes:
        texts = [t.get_text() for t in axes.get_legend().get_texts()]
        assert texts[1] == f"1 ({sum(labels == 1)})" and len(texts) == classes
        drawn[0].draw_without_rendering()
        box, full = axes.get_legend().get_window_extent(), drawn[0].bbox
        assert box.x1 <= full.x1 and box.y0 >= 0 and box.y1 <= full.y1


@pytest.mark.parametrize("classes", [0, 3])
def test_image_among_latents_of_examples_is_a_star(drawn, tmp_path, classes):
    x = np.random.RandomState(0).randn(101, 5)
    labels = np.arange(100) % classes if classes else None
    latent_plots.save_latents(tmp_path / "x.png", x, x, labels, {}, has_image=True)
    (axes,) = drawn[0].axes
    points, _ = latent_plots.project_latents(x, x)
    star, *examples = (np.asarray(shown.get_offsets()) for shown in axes.collections)
    assert np.allclose(star, points[100:]) and len(np.concatenate(examples)) == 100
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["the image", *(f"{k} ({sum(labels == k)})" for k in range(classes))]


def test_histograms_share_bins_and_count_what_is_not_finite(drawn, tmp_path):
    sets = dict(test=np.array([1.0, 2.0, np.nan, 3.0]), train=np.array([5.0]))
    latent_plots.save_histograms(tmp_path / "x.png", sets, "nats", {}, "title")
    (axes,) = drawn[0].axes
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == [
        "test: n = 3, mean 2.00 (s.e. 0.58), 1 not finite",
        "train: n = 1, mean 5.00",
    ]
    heights = np.array([bar.get_height() for bar in axes.patches])
    assert heights.sum() == pytest.approx(2)
    lefts = np.array([bar.get_x() for bar in axes.patches]).reshape(2, -1)
    assert np.array_equal(*lefts)
    assert axes.get_xlabel() == "nats" and axes.get_ylabel() == "share of the set"
    sets = dict(test=np.full(3, np.nan))
    latent_plots.save_histograms(tmp_path / "y.png", sets, "nats", {})
    assert "n = 0, 3 not finite" in drawn[1].axes[0].get_legend().get_texts()[0].get_text()


def test_ends_of_interpolated_points_are_marked(drawn, tmp_path):
    x, spec = np.random.RandomState(0).randn(6, 2), Spec("points", (2,), 10)
    labels = GridLabels(has_ends=True)
    sample_files.save_samples_png(tmp_path / "x.png", x, spec, {}, 3, Annotations("t", labels))
    (axes,) = drawn[0].axes
    _, first, last = (np.asarray(points.get_offsets()) for points in axes.collections)
    assert np.allclose(first, x[[0, 3]]) and np.allclose(last, x[[2, 5]])
    paths = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 3]
    assert np.allclose(paths, x.reshape(2, 3, 2))

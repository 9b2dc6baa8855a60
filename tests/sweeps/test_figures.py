"""What figures and tables say of themselves: statistic, error bars, the best, cuts,
differences to a baseline, styles, and the rows behind the figure.
"""

import csv
import math
import re

import numpy as np
import pytest
from helpers import ROOT, experiment_text
from PIL import Image
from test_sweep_tables import QUIET, finish, swept

from aigc_jax.cli import main as cli
from aigc_jax.sweeps import curves, differences, figure_rows, grid, plots, report, statistics
from aigc_jax.sweeps import presentation as shown
from aigc_jax.sweeps.bare_rows import NO_SPLIT, infer_trials
from aigc_jax.sweeps.evidence import Results
from aigc_jax.sweeps.pages import collect
from aigc_jax.sweeps.presentation import make_presentation
from aigc_jax.sweeps.styles import STYLES
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.text_table import Table, parse_markdown

pytestmark = pytest.mark.unit

RATES = (1e-3, 1e-2, 1e-1)
THREE = grid.product(grid.values("hp.lr", *RATES), grid.seeds(4))
VALUES = np.random.RandomState(0).randn(3, 4) + np.array([[5.0], [4.0], [7.0]])
FILES = ("figure.png", "figure.pdf", "figure.csv", "table.md")


@pytest.fixture
def sweep(tmp_path):
    """Three rates of four seeds, all done, with VALUES on both splits."""
    made = swept(tmp_path / "sweep", THREE)
    for i, value in enumerate(VALUES.ravel()):
        finish(made, i, float(value), kl=float(value) ** 2)
    return made


def drawn(results, **view):
    """The figure of results, and the text below it."""
    drawing = report.choose_default_figure(results._replace(view=make_presentation(**view)))
    figure = plots.make_figure(drawing)
    return figure, (figure._supxlabel.get_text() if figure._supxlabel else "").replace("\n", " ")


def table_of(results, **view):
    """The cells of the first table, and the text of all."""
    results = results._replace(view=make_presentation(**view))
    text = report.make_table(results, None, lambda line: None)
    return [table for table in parse_markdown(text) if isinstance(table, Table)], text


# -- statistics and error bars have names


@pytest.mark.parametrize(
    "view, caption",
    [
        ({}, "Mean over n trials that differ in the seed; standard error in parentheses"),
        (dict(interval="sd"), "standard deviation in parentheses"),
        (dict(interval="student"), "95 % interval, Student's t in brackets"),
        (dict(statistic="median"), "Median over n .*; 95 % interval, percentile bootstrap in br"),
        (dict(statistic="iqm"), "Interquartile mean over n trials"),
    ],
)
def test_table_and_figure_name_statistic_and_error_bar(sweep, view, caption):
    results = sweep.read_results()
    tables, text = table_of(results, **view)
    assert re.search(caption, text) and "bold: the best of a column." in text
    made = make_presentation(**view)
    for line, values in zip(tables[0].rows, VALUES, strict=True):
        centre = statistics.compute_statistic(values, made.statistic)
        low, high = statistics.compute_interval(values, made.statistic, made.error_bar)
        found = [float(x) for x in re.findall(r"-?\d+\.?\d*", line[2])]
        wanted = [centre, (high - low) / 2] if "parenth" in caption else [centre, low, high]
        assert np.allclose(found, wanted, rtol=0.06), line
    statistic, error_bar = made.describe()
    assert f"Lines: {statistic} over n = 4 trials; bands: {error_bar}." in drawn(results, **view)[1]


def test_single_trials_have_no_error_bars_and_no_words_for_them(tmp_path):
    made = swept(tmp_path, grid.values("hp.lr", *RATES))
    for i in range(3):
        finish(made, i, float(i))
    figure, notes = drawn(made.read_results())
    assert "Lines:" not in notes and not figure.axes[0].collections
    assert "standard error" not in table_of(made.read_results())[1]


@pytest.mark.parametrize("interval", ["se", "sd", "student"])
def test_error_bar_of_the_mean_is_refused_for_other_statistics(interval):
    with pytest.raises(UserError, match="is an error bar of the mean"):
        make_presentation("iqm", interval)
    assert make_presentation("iqm", "bootstrap").error_bar == "bootstrap"


def test_figure_draws_the_statistic_and_its_band(sweep):
    results = sweep.read_results()
    figure, _ = drawn(results, statistic="median")
    for i, line in enumerate(figure.axes[0].lines):
        assert np.allclose(line.get_ydata(), np.median(VALUES[i]))
        low, high = statistics.bootstrap_interval(VALUES[i], "median")
        band = figure.axes[0].collections[i].get_paths()[0].vertices[:, 1]
        assert np.isclose(band.min(), low) and np.isclose(band.max(), high)


# -- the best


def test_best_is_marked_where_the_direction_is_known(sweep):
    results = sweep.read_results()
    tables, _ = table_of(results)
    assert [line[2].startswith("**") for line in tables[0].rows] == [False, True, False]
    assert not any("**" in line[3] for line in tables[0].rows), "kl has no better direction"
    figure, notes = drawn(results)
    assert "Best (lowest at the last step): lr = 0.01." in notes
    assert figure.axes[0].get_legend_handles_labels()[1][1] == "lr = 0.01 (best)"
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    assert widths[1] > widths[0] == widths[2]
    more = results._replace(mode="max")
    assert table_of(more)[0][0].rows[2][2].startswith("**")
    assert "Best (highest at the last step): lr = 0.1." in drawn(more)[1]


@pytest.mark.parametrize(
    "name, direction",
    [
        ("neg_elbo", "min"),
        ("frechet_pixels", "min"),
        ("bits_per_byte", "min"),
        ("accuracy", "max"),
        ("stacked_modes", "max"),
        ("rouge_1", "max"),
        ("d_loss", ""),
        ("kl", ""),
        ("nll_error", ""),
        ("parzen_sigma", ""),
    ],
)
def test_directions_of_metrics(name, direction):
    assert shown.find_direction(name) == direction
    assert shown.find_direction(name, f"valid/{name}", "max") == "max"


def test_equal_values_are_both_the_best():
    column = plots_column([[1.0], [1.0], [2.0]])
    assert find_best(column) == [0, 1] and find_best(plots_column([[1.0]])) == []


def plots_column(values):
    from aigc_jax.sweeps.tables import Column

    return Column("test", "loss", values)


def find_best(column):
    from aigc_jax.sweeps import tables

    return tables.find_best(column, Results([], [], []))


# -- nothing is left out without a line


def test_lines_of_unequal_length_are_cut_and_said_so(tmp_path):
    made = swept(tmp_path, grid.product(grid.values("hp.lr", *RATES[:2]), grid.seeds(3)))
    for i in range(6):
        steps = (0, 8, 16, 24, 32) if i == 4 else (0, 8, 16)
        finish(made, i, float(i), steps)
    results = made.read_results()
    figure, notes = drawn(results)
    assert (
        "The line of lr = 0.01 is cut to the common length: step 16; 1 trial beyond it as thin "
        "lines."
    ) in notes
    first, second, thin = figure.axes[0].lines
    assert np.allclose(second.get_xydata(), [(0, 4), (8, 4), (16, 4)]), "the mean of all three"
    assert thin.get_xdata().tolist() == [16, 24, 32] and thin.get_marker() == ""


def test_trials_outside_the_lines_end_in_a_cross(tmp_path):
    made = swept(tmp_path, grid.seeds(3))
    finish(made, 0, 1.0)
    finish(made, 1, 2.0)
    finish(made, 2, 9.0, (0, 8), "failed: diverged", test=False)
    figure, notes = drawn(made.read_results())
    assert "Thin lines that end in a cross are trials that are not in the lines." in notes
    assert "leaving out 1 trial that failed" in notes
    line, thin = figure.axes[0].lines
    assert np.allclose(line.get_ydata(), 1.5) and thin.get_marker() == "x"


def test_steps_that_not_all_trials_have_are_counted(tmp_path):
    made = swept(tmp_path, grid.seeds(2))
    finish(made, 0, 1.0, (0, 4, 8, 16))
    finish(made, 1, 3.0, (0, 8, 16))
    figure, notes = drawn(made.read_results())
    assert "The line lacks 1 step that not all its trials have." in notes
    assert figure.axes[0].lines[0].get_xdata().tolist() == [0, 8, 16]


def test_metrics_without_a_column_are_named(tmp_path):
    made = swept(tmp_path, grid.seeds(2))
    for i in range(2):
        finish(made, i, 1.0, **{f"m{j}": 1.0 for j in range(9)})
    assert "Not in the table: m7, m8." in table_of(made.read_results())[1]


def test_numbers_of_trials_that_differ_are_in_the_legend():
    curve = lambda n, total: curves.Curve((n,), f"lr = {n}", total, list(range(n)), *[None] * 3)
    labels = lambda *counts: curves.label_curves([curve(*c) for c in counts], [0])
    assert labels((3, 3), (3, 3)) == ["lr = 3 (best)", "lr = 3"]
    assert labels((3, 3), (2, 2)) == ["lr = 3 (3 trials, best)", "lr = 2 (2 trials)"]
    assert labels((2, 3), (2, 2)) == ["lr = 2 (2 of 3 trials, best)", "lr = 2"]


# -- files


def test_figure_is_written_as_png_pdf_and_rows(sweep, tmp_path):
    for name in "ab":
        view = make_presentation("iqm", baseline="lr=0.01")
        report.write_sweep_results(sweep, out_dir=tmp_path / name, view=view, **QUIET)
        assert {path.name for path in (tmp_path / name).iterdir()} == set(FILES)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert (tmp_path / "a" / "figure.pdf").read_bytes().startswith(b"%PDF")
    with open(tmp_path / "a" / "figure.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [row for row in rows if row["panel"] == "curves"]
    assert len(lines) == 3 * 3 and {row["interval"] for row in lines} == {"bootstrap"}
    for i, rate in enumerate(RATES):
        (row,) = [r for r in lines if float(r["hp.lr"]) == rate and r["step"] == "16"]
        assert float(row["value"]) == statistics.interquartile_mean(VALUES[i]) and row["n"] == "4"
        ends = float(row["low"]), float(row["high"])
        assert ends == statistics.bootstrap_interval(VALUES[i], "iqm")
    pairs = [row for row in rows if row["panel"] == "differences"]
    assert [float(row["value"]) for row in pairs] == pytest.approx(
        [(VALUES[i] - VALUES[1]).mean() for i in (0, 2)]
    )


def test_rows_behind_an_experiments_own_figure_are_what_it_draws():
    def draw(axes):
        axes[0].plot([1, 2], [3.0, 4.0], label="line")
        axes[0].axhline(7.0)  # across the axes: no data
        axes[0].fill_between([1, 2], [0, 0], [1, 1], label="band")
        axes[1].scatter([5], [6.123456789])
        axes[1].bar([1, 2], [3, 4], label="bars")
        axes[1].errorbar([1], [2], [0.5])

    figure = plots.make_figure(plots.Drawing(draw, panels=(1, 2)))
    rows = [tuple(row.values()) for row in figure_rows.extract_rows(figure)]
    assert rows[:2] == [
        (1, "line", "line", 1, 3, None, None),
        (1, "line", "line", 2, 4, None, None),
    ]
    assert {row[2] for row in rows if row[0] == 1} == {"line", "band"}
    assert (2, "", "points", 5, 6.12346, None, None) in rows
    assert [row for row in rows if row[2] == "bar"] == [
        (2, "bars", "bar", 1, 3, None, None),
        (2, "bars", "bar", 2, 4, None, None),
    ]
    assert (2, "", "error bar", 1, None, 1.5, 2.5) in rows


# -- differences to a baseline


def test_table_of_differences_has_the_numbers_of_the_statistics(sweep):
    results = sweep.read_results()
    tables, text = table_of(results, baseline="0.01")
    rows = [row for row in results.rows if row["split"] == "test"]
    records = statistics.paired_differences(rows, "test/neg_elbo", (0.01,), ["hp.lr"])
    assert tables[1].header == (
        "lr",
        "difference of test neg_elbo",
        "95 % interval",
        "n",
        "p",
        "p (Holm)",
        "n for 80 % power",
    )
    for line, record in zip(tables[1].rows, records, strict=True):
        assert line[0] == f"{record.arm[0]:g}" and line[3] == "4"
        assert float(line[1]) == pytest.approx(record.mean, rel=1e-3)
        low, high = map(float, line[2].strip("[]").split(", "))
        assert (low, high) == pytest.approx((record.low, record.high), rel=1e-3)
        assert line[4:] == (f"{record.p:.2g}", f"{record.p_holm:.2g}", f"{record.n_for_power:,}")
    assert "Difference of each arm to lr = 0.01 (below 0 is better)" in text
    assert "p (Holm) is corrected for 2 comparisons" in text and "*" not in text.split("\n\n")[-2]


def test_figure_of_differences_names_n_and_p(sweep):
    results = sweep.read_results()
    figure, notes = drawn(results, baseline="lr=0.01")
    curves_axes, axes = figure.axes
    assert (
        len(curves_axes.lines) == 3 and axes.get_title() == "difference to the baseline lr = 0.01"
    )
    labels = [label.get_text() for label in axes.get_yticklabels()]
    records = differences.compute_differences(
        results._replace(view=make_presentation(baseline="0.01"))
    ).records
    assert labels == [f"lr = {r.arm[0]:g}\nn = {r.n}, p = {r.p_holm:.2g}" for r in records]
    assert "Differences: paired by seed, 95 % intervals by Student's t" in notes


def test_failed_and_unpaired_seeds_are_not_in_a_difference(tmp_path):
    made = swept(tmp_path, grid.product(grid.values("hp.lr", *RATES[:2]), grid.seeds(3)))
    for i in range(6):
        failed = dict(status="failed: diverged", test=False) if i == 4 else {}
        finish(made, i, float(i), **failed)
    tables, text = table_of(made.read_results(), baseline="0.001")
    assert tables[1].rows == [("0.01", "3", "\u2013", "2", "\u2013", "\u2013", "\u2013")]
    assert "\u2013: all n differences are equal, without the variance that a test needs." in text
    assert "corrected for 0 comparisons." in text
    figure, notes = drawn(made.read_results(), baseline="0.001")
    assert "lr = 0.01\nn = 2, no variance" in [
        t.get_text() for t in figure.axes[1].get_yticklabels()
    ]
    assert "No variance: all n differences are equal" in notes


@pytest.mark.parametrize(
    "text, arm",
    [
        ("lr=0.001", (0.001, "(3,)")),
        ("hp.lr=1e-3", (0.001, "(3,)")),
        ("0.001", (0.001, "(3,)")),
        ("lr=1e-2,latent_dims=(3,)", (0.01, "(3,)")),
        ("lr = 0.01, latent_dims = (5, 6)", (0.01, "(5, 6)")),
        ("(5,6)", (0.01, "(5, 6)")),
    ],
)
def test_arm_is_named_by_some_of_its_keys(text, arm):
    arms = [(0.001, "(3,)"), (0.01, "(3,)"), (0.01, "(5, 6)")]
    assert shown.find_arm(text, arms, ["hp.lr", "latent_dims"]) == arm


@pytest.mark.parametrize(
    "text, words",
    [
        ("lr=0.02", r"baseline=lr=0.02 is no arm: lr=0.001, lr=0.01, lr=0.1; did you mean 'lr=0"),
        ("lr", "is no arm"),
        ("lr=(", r"baseline=lr=\( has an unclosed \("),
        ("kl=0.01", "is no arm"),
    ],
)
def test_unknown_arm_is_a_one_line_error(sweep, text, words):
    with pytest.raises(UserError, match=words):
        table_of(sweep.read_results(), baseline=text)


def test_arm_that_several_match_is_refused():
    arms = [(0.01, "(3,)"), (0.01, "(5, 6)")]
    with pytest.raises(UserError, match=r"names 2 arms: set more keys, as in lr=0.01,latent_dims="):
        shown.find_arm("lr=0.01", arms, ["hp.lr", "latent_dims"])


def test_committed_rows_imply_trials_for_a_baseline(capsys, tmp_path):
    words = ["figure", "--experiment=vae_beta", "--baseline=beta=1", f"--out={tmp_path}"]
    assert cli.main(words) == 0
    committed = (ROOT / "experiments/results/vae_beta/table.md").read_text()
    text = (tmp_path / "table.md").read_text()
    assert text.startswith(committed) and "difference of test neg_elbo" in text
    line = next(line for line in text.splitlines() if line.startswith("| 0.05 | 36"))
    assert line.split("|")[4].strip() == "5"
    assert cli.main([*words[:1], "--experiment=precision", "--baseline=float32"]) == 1
    assert "--baseline needs rows with the columns seed, step and split" in capsys.readouterr().err


def test_rows_without_names_of_trials_have_differences(capsys, tmp_path):
    """Of the same trials as the report of these rows."""
    words = ["figure", "--experiment=shakespeare", "--baseline=rnn", f"--out={tmp_path}"]
    assert cli.main(words) == 0
    text = (tmp_path / "table.md").read_text().split("difference of")[1]
    folder = ROOT / "experiments/results/shakespeare"
    collection = collect.collect_rows(folder, None, "shakespeare", "test/loss")
    arms = {trial["network"] for trial in collection.results.trials} - {"rnn"}
    assert len(arms) > 1 and all(f"| {arm}" in text for arm in arms)


ROW = {"trial": 7, "a": 1, "b": "x", "seed": 0, "step": 2, "split": "test", "loss": 0.5}


@pytest.mark.parametrize(
    "row, column, varied, name",
    [
        (ROW, "", ["a", "b"], "7"),
        (ROW, "loss", ["loss", "a", "b"], "7"),
        ({k: v for k, v in ROW.items() if k != "trial"}, "", ["a", "b"], "a = 1, b = x, seed = 0"),
        ({f"k{i}": i for i in range(9)} | ROW, "", [*(f"k{i}" for i in range(9)), "a", "b"], "7"),
        ({"run": "one", "step": 1, "fid": 2.0}, "", ["run"], "run = one"),
        ({"step": 1, "fid": 2.0} | {f"t{i}": "x" for i in range(9)}, "", [*"012345"], None),
        ({"network": "rnn", "fid": 2.0}, "", [], None),
    ],
)
def test_columns_imply_trials_and_varied_keys(row, column, varied, name):
    """Keys stand before seed, step and split; else they are columns of short texts."""
    before = dict(row)
    found = infer_trials(Results([row], trials=[], varied=[], metric="test/loss"), column)
    assert [key.removeprefix("t") for key in found.varied] == varied and row == before
    assert found.metric == "test/loss" and infer_trials(found) is found
    if name:
        (trial,) = found.trials
        assert trial["trial"] == found.rows[0]["trial"] == name and trial["status"] == "done"
        assert found.rows[0]["split"] == row.get("split", NO_SPLIT)
        assert {key: trial[key] for key in varied} == {key: row[key] for key in varied}


# -- flags


@pytest.mark.parametrize(
    "flag",
    [
        *(f"--statistic={name}" for name in statistics.STATISTICS),
        *(f"--interval={name}" for name in statistics.INTERVALS),
        *(f"--style={name}" for name in STYLES),
        "--baseline=lr=0.01",
    ],
)
def test_every_value_of_every_flag_draws(sweep, tmp_path, capsys, flag):
    words = ["figure", f"--workdir={sweep.path}", f"--out={tmp_path / 'out'}"]
    assert cli.main(words) == 0
    usual = {name: (tmp_path / "out" / name).read_bytes() for name in FILES}
    assert cli.main([*words, flag]) == 0
    changed = {name for name in FILES if (tmp_path / "out" / name).read_bytes() != usual[name]}
    defaults = ("--statistic=mean", "--interval=se", "--style=plain")
    figures = {"figure.png", "figure.pdf"}
    expected = set() if flag in defaults else figures if "style" in flag else set(FILES)
    assert changed == expected


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--statistic=mode"], "--statistic = 'mode' is none of mean, median, iqm"),
        (["--interval=sem"], "--interval = 'sem' is none of se, sd, student, bootstrap"),
        (["--style=paperr"], "did you mean 'paper'?"),
        (["--statistic=iqm", "--interval=se"], "--interval=se is an error bar of the mean"),
        (["--baseline=lr=7"], "--baseline=lr=7 is no arm"),
    ],
)
def test_wrong_flags_are_one_line_errors(sweep, capsys, flags, words):
    assert cli.main(["figure", f"--workdir={sweep.path}", *flags]) == 1
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--statistic=iqm", "--interval=sd"])
def test_statistic_is_refused_by_an_experiments_own_figure(capsys, flag, tmp_path):
    words = ["figure", "--experiment=vae_beta", f"--out={tmp_path / 'out'}", flag]
    assert cli.main(words) == 1 and not (tmp_path / "out").exists()
    assert f"{flag} has no effect: the experiment defines its own" in capsys.readouterr().err


def test_sweep_passes_its_flags_to_table_and_figure(tmp_path, monkeypatch):
    from aigc_jax.sweeps import request

    seen = []
    monkeypatch.setattr(request, "run_request", lambda *args: True)
    monkeypatch.setattr(request, "write_and_check_outcome", lambda *a, view, **_: seen.append(view))
    flags = ["--statistic=iqm", "--interval=bootstrap", "--baseline=lr=1e-3", "--style=slide"]
    words = ["--config=vae_digits", "--grid=hp.lr=1e-3,1e-2", f"--workdir={tmp_path / 's'}"]
    assert cli.main(["sweep", *words, *flags]) == 0
    assert seen == [shown.Presentation("iqm", "bootstrap", "lr=1e-3", "slide")]


FLAGS = ("--statistic=iqm", "--interval=sd", "--baseline=lr=1", "--style=paper")


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_are_refused_by_an_experiment_that_trains_by_its_own_function(tmp_path, capsys, flag):
    file = tmp_path / "question.py"
    file.write_text(
        "from aigc_jax.sweeps.experiment import Experiment\nEXPERIMENT = Experiment(run=list)\n"
    )
    words = ["sweep", f"--experiment={file}", f"--workdir={tmp_path / 'sweep'}", flag]
    assert cli.main(words) == 1 and not (tmp_path / "sweep").exists()
    assert f"{flag.split('=')[0]} is not read by" in capsys.readouterr().err


# -- styles


@pytest.mark.parametrize("baseline", ["", "lr=0.01"])
@pytest.mark.parametrize("style", ["paper", "slide"])
def test_styles_have_their_size_and_fonts_and_fit(sweep, style, baseline):
    figure, _ = drawn(sweep.read_results(), style=style, baseline=baseline)
    width, height = figure.get_size_inches()
    if style == "paper":
        assert width == (6.75 if baseline else 3.25)
    else:
        assert height / width == pytest.approx(9 / 16)
    base = dict(paper=8, slide=16)[style]
    axes = figure.axes[0]
    assert axes.xaxis.label.get_fontsize() == base
    figure.draw_without_rendering()
    assert {label.get_fontsize() for label in axes.get_xticklabels()} == {base}
    sizes = {text.get_fontsize() for text in axes.get_legend().get_texts()}
    assert min(sizes) >= dict(paper=6, slide=12)[style]
    full = figure.bbox
    for box in [figure.get_tightbbox(), figure._supxlabel.get_window_extent()]:
        scale = figure.dpi if box.x1 <= full.x1 / figure.dpi + 0.2 else 1
        assert box.x1 * scale <= full.x1 + 1 and box.y0 * scale >= -1


def test_dots_per_inch_follow_the_style(sweep, tmp_path):
    view = make_presentation(style="paper")
    report.write_sweep_results(sweep, out_dir=tmp_path, view=view, **QUIET)
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == round(3.25 * 300)


# -- hostile names


HOSTILE = (
    "a|b",
    r"$\frac{1}{0$",
    "<script>alert(1)</script>",
    "two\nlines | x",
    "\x1b[31mred\x1b[0m\x07",
    "![x](http://example.com/x.png)",
    "&#124; &lt;b&gt;",
    "x" * 5_000_000,
    "`code`",
)


def test_hostile_values_are_shown_as_they_are(tmp_path, capsys):
    trials = [
        {"trial": f"t{i}", "data.path": value, "seed": seed, "status": "done"}
        for i, value in enumerate(HOSTILE)
        for seed in [0]
    ]
    rows = [
        {k: v for k, v in trial.items() if k != "status"}
        | dict(step=step, split=split, loss=float(i))
        for i, trial in enumerate(trials)
        for split in ("valid", "test")
        for step in (0, 8)
    ]
    view = make_presentation(baseline="a|b")
    results = Results(rows, trials, ["data.path"], view=view)
    out = tmp_path / "out"
    report.render_results(out, results)
    text = (out / "table.md").read_text()
    tables = [table for table in parse_markdown(text) if isinstance(table, Table)]
    assert [len(table.rows) for table in tables] == [len(HOSTILE), len(HOSTILE) - 1]
    cells = [line[0] for line in tables[0].rows]
    assert cells[:3] == list(HOSTILE[:3]) and cells[3] == r"two\nlines | x"
    assert cells[6] == HOSTILE[6] and len(cells[7]) <= 80
    for wrong in ("\x1b", "\x07", "<script", "](http"):
        assert wrong not in text and wrong not in capsys.readouterr().out
    figure = plots.make_figure(report.choose_default_figure(results))
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert len(labels) == len(HOSTILE) and labels[1] == r"path = \$\frac{1}{0\$"
    assert not any("\n" in label or "\x1b" in label for label in labels)
    # drawn as it is: no formula, whose error would end the command
    assert figure.axes[0].get_legend().get_texts()[1]._preprocess_math(labels[1])[1] is False


def test_hostile_metric_is_drawn_as_text():
    rows = [
        dict(trial="t", seed=0, step=step, split="valid", **{r"$\oops{$": 1.0}) for step in (0, 1)
    ]
    results = Results(rows, [dict(trial="t", seed=0, status="done")], [])
    figure = plots.make_figure(report.choose_default_figure(results))
    figure.draw_without_rendering()
    assert math.isclose(figure.axes[0].lines[0].get_ydata()[0], 1.0)


def test_experiment_names_its_error_bars_in_a_caption(tmp_path):
    folder = tmp_path / "results" / "question"
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text("trial,step,split,loss\na,4,valid,2.0\n")
    own = "config='x', table=lambda rows: 'own\\n', figure=lambda rows, axes: axes.plot([1])"
    (tmp_path / "question.py").write_text(experiment_text(f"{own}, caption='Bars: range, n = 3.'"))
    assert cli.main(["figure", f"--experiment={tmp_path / 'question.py'}"]) == 0
    assert (folder / "table.md").read_text() == "own\n\nBars: range, n = 3.\n"

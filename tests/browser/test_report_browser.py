"""Reports in a headless Chromium: what is drawn equals the rows, controls work by real
clicks, nothing is requested, nothing overflows. `make test-browser` runs them.
"""

import shutil
import time

import numpy as np
import pytest
import report_pages as pages
from helpers import ROOT
from report_pages import done

from aigc_jax.sweeps import evidence, grid
from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps.pages import collect
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.training.run_dir import RunDir

pytestmark = pytest.mark.browser

EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))
WIDTHS = (390, 1280)
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Draws every chart, as scrolling and printing do.
DRAW_ALL = "window.dispatchEvent(new Event('beforeprint'))"
CHARTS = """[...document.querySelectorAll('[data-chart]')].map(f => ({
  name: f.dataset.name,
  paths: f.querySelectorAll('.scatterlayer .trace path').length,
  traces: f.querySelector('.plot').data.map(t => ({
    mean: t.meta === 'mean', dash: t.line?.dash ?? '', color: t.line?.color ?? '',
    y: t.fill ? [] : t.y.filter(v => v !== null)}))}))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install 'aigc_jax[browser]'"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Open a file; at the end, no page had an error or made a request."""
    messages, opened = [], []

    def open_file(path, width=1280, scheme="light"):
        page = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
        opened.append(page)
        page.set_default_timeout(20_000)
        page.on("console", lambda m: messages.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: messages.append(f"error: {e}"))
        own = path.absolute().as_uri()
        page.on("request", lambda r: r.url in (own,) or r.url.startswith("data:")
                or messages.append(f"request: {r.url}"))  # fmt: skip
        page.goto(own)
        page.wait_for_function("document.documentElement.dataset.ready === 'true'")
        return page

    yield open_file
    for page in opened:
        page.close()
    assert messages == []


def check_width(open_page, path):
    """Nothing overflows, also with every chart drawn and details open."""
    for width in WIDTHS:
        page = open_page(path, width)
        page.evaluate(DRAW_ALL)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        page.wait_for_timeout(200)
        assert page.evaluate(OVERFLOW) <= 0, width
        page.close()


def read_charts(page):
    page.evaluate(DRAW_ALL)
    return {chart["name"]: chart for chart in page.evaluate(CHARTS)}


def count_values(results):
    """{metric: number of values} of the metrics of rows with more than one step."""
    values = {}
    for row in results.rows:
        for key, value in row.items():
            known = key in ("trial", "step", "split", "seed", *results.varied)
            if not known and isinstance(value, (int, float)):
                name = f"{row['split']} {key}".removeprefix("rows ")
                values.setdefault(name, {}).setdefault(row["trial"], set()).add(row["step"])
    return {
        name: sum(map(len, trials.values()))
        for name, trials in values.items()
        if max(map(len, trials.values())) > 1
    }


def count_drawn(charts):
    """{metric: number of points of single trials}."""
    return {
        name: sum(len(trace["y"]) for trace in chart["traces"] if not trace["mean"])
        for name, chart in charts.items()
    }


def show_parallel(page):
    page.locator("#parallel").scroll_into_view_if_needed()
    page.locator("#parallel path").first.wait_for()


# -- a sweep that was trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The sweep of `make demo`, smaller."""
    path = tmp_path_factory.mktemp("demo") / "sweep"
    small = dict(steps=20, nll_samples=10, batch_size=16)
    run = dict(eval_every=5, sample_every=10, log_every=5, samples=4, log=())
    keys = small | {f"run.{key}": value for key, value in run.items()}
    done(
        "sweep",
        "--config=vae_digits",
        "--grid",
        "hp.beta=0.25,1,4",
        "--seeds=2",
        *(f"--config.{key}={value}" for key, value in keys.items()),
        "--config.model.widths=((12,),)",
        f"--workdir={path}",
    )
    return Sweep(path)


@pytest.fixture(scope="module")
def report(trained):
    return trained.path / "report.html"


def test_curves_and_tables_of_a_sweep_are_those_of_the_rows(open_page, trained, report):
    page = open_page(report)
    results = trained.read_results()
    expected = count_values(results)
    charts = read_charts(page)
    assert charts.keys() == expected.keys() and all(c["paths"] for c in charts.values())
    rows = [row for row in results.rows if row["split"] == "valid"]
    for i, beta in enumerate((0.25, 1.0, 4.0)):
        own = [row for row in rows if row["hp.beta"] == beta]
        steps = sorted({row["step"] for row in own})
        means = [np.mean([r["neg_elbo"] for r in own if r["step"] == step]) for step in steps]
        lines = [t for t in charts["valid neg_elbo"]["traces"] if t["mean"]]
        np.testing.assert_allclose(lines[i]["y"], means, rtol=1e-6)
    page.get_by_label("single trials").check()
    assert count_drawn(read_charts(page)) == expected
    assert page.locator('[data-table="trials"] tbody tr').count() == len(results.trials) == 6
    assert page.locator('[data-table="summary"] tbody tr').count() == 3


def test_legend_isolates_a_group_by_clicks_and_keys(open_page, report):
    page = open_page(report)
    group = page.get_by_role("group", name="Groups")
    colours = lambda: {
        t["color"] for c in read_charts(page).values() for t in c["traces"] if t["mean"]
    }
    before = colours()
    assert len(before) == 3
    chip = group.get_by_role("button", name="beta = 1")
    chip.click()
    assert len(colours()) == 1 and chip.get_attribute("aria-pressed") == "true"
    assert group.locator('[aria-pressed="false"]').count() == 2
    assert page.locator("#parallel path").count() == 2  # the trials of the group
    chip.press("Enter")
    assert colours() == before and page.locator("#parallel path").count() == 6
    group.get_by_role("button", name="beta = 4").click(modifiers=["Shift"])
    assert len(colours()) == 2


def test_controls_of_curves_change_axes_smoothing_and_size(open_page, report):
    page = open_page(report)
    before = read_charts(page)["train loss"]["traces"]
    page.locator("#smooth").press("End")  # the largest value
    after = read_charts(page)["train loss"]["traces"]
    assert page.locator("#smooth-value").inner_text() == "0.99" and before != after
    page.locator("#smooth").press("Home")
    assert read_charts(page)["train loss"]["traces"] == before
    page.get_by_label("log values").check()
    page.get_by_label("log steps").check()
    kind = "document.querySelector('.plot').layout"
    assert page.evaluate(f"[{kind}.xaxis.type, {kind}.yaxis.type]") == ["log", "log"]
    figure = page.locator(".chart").first
    narrow = figure.bounding_box()["width"]
    figure.get_by_role("button", name="Enlarge").click()
    assert figure.bounding_box()["width"] > 2 * narrow
    page.get_by_label("metrics").fill("kl")
    assert page.locator("[data-chart]:visible").count() == 2


def test_curves_are_drawn_when_they_are_scrolled_to_and_name_the_arm(open_page, report):
    page = open_page(report)
    figure = page.locator("[data-chart]").first
    figure.scroll_into_view_if_needed()
    line = figure.locator(".scatterlayer path.js-line").first
    line.wait_for()
    box = figure.locator(".plot .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 5)
    for fraction in np.linspace(0.02, 0.98, 25):
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + fraction * box["height"])
        page.wait_for_timeout(60)
        if figure.locator(".hoverlayer .hovertext").count():
            break
    text = figure.locator(".hoverlayer .hovertext").first.text_content()
    assert "beta = " in text and "step 10: mean" in text and "n = 2" in text


def test_sliders_and_seeds_choose_the_images(open_page, trained, report):
    page = open_page(report)
    series = page.locator(".series").first
    series.scroll_into_view_if_needed()
    images = series.locator("img")
    assert images.count() == 3  # the trials of one seed
    loaded = "[...document.querySelectorAll('.series img')].every(i => i.naturalWidth > 1)"
    page.wait_for_function(loaded)
    sources = lambda: [images.nth(i).get_attribute("src") for i in range(images.count())]
    at_end = sources()
    assert series.locator("output").inner_text() == "20"
    series.locator(".step").press("ArrowLeft")
    assert series.locator("output").inner_text() == "10" and sources() != at_end
    series.locator("select").select_option("1")
    assert images.count() == 3 and "seed=1" in series.inner_text()
    series.locator("select").select_option("all")
    files = [*trained.path.glob("trials/*/samples/*.png")]
    assert images.count() == 6 and len(files) == 12
    page.wait_for_function(loaded)


def test_parallel_coordinates_select_trials_by_dragging_and_by_keys(open_page, report):
    page = open_page(report)
    show_parallel(page)
    status = page.locator("#parallel-status")
    assert status.inner_text() == "6 trials"
    box = page.locator("#parallel .axis rect.hit").first.bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(x, box["y"] + 60, steps=4)
    page.mouse.up()
    assert status.inner_text() == "2 of 6 trials selected"
    axis = page.locator("#parallel .axis").first
    axis.press("Escape")
    assert status.inner_text() == "6 trials"
    axis.press("ArrowUp")
    assert status.inner_text() == "4 of 6 trials selected"
    page.locator("#metric").select_option("test kl")
    assert page.locator("#parallel text.title").last.text_content() == "test kl"
    assert page.evaluate("document.querySelectorAll('[data-slice] .plot').length") == 1


def test_tables_are_sorted_filtered_and_compared_to_any_baseline(open_page, report):
    page = open_page(report)
    table = page.locator('[data-table="trials"]')
    head = table.get_by_role("button", name="test neg_elbo")
    column = lambda: [float(v) for v in table.locator("tbody td:nth-child(6)").all_inner_texts()]
    head.click()
    assert column() == sorted(column())
    head.press("Enter")
    assert column() == sorted(column(), reverse=True)
    page.get_by_label("filter", exact=True).fill("seed=1")
    assert table.locator("tbody tr:visible").count() == 3
    differences = page.locator('[data-table="differences"]')
    page.get_by_label("Baseline").select_option("1")
    visible = differences.locator("tbody:visible tr")
    assert visible.count() == 3 and "baseline" in visible.nth(1).inner_text()


def test_theme_is_toggled_and_commands_are_copied(open_page, report):
    page = open_page(report, scheme="dark")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    background = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = background()
    button = page.locator("#theme")
    button.click()
    assert background() == "rgb(255, 255, 255)" != dark
    button.press("Enter")
    assert background() == dark and button.inner_text() == "Theme: dark"
    copy = page.locator('[data-table="trials"] button.copy').first
    copy.click()
    text = page.evaluate("navigator.clipboard.readText()")
    assert (
        text.startswith("aigc train --config=configs/vae_digits.py") and "--config.seed=0" in text
    )
    assert copy.inner_text() == "Copied"


def test_keyboard_reaches_every_control_with_a_visible_focus(open_page, report):
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, input')].filter(e => "
        "!e.textContent.trim() && !e.getAttribute('aria-label') && !e.closest('label')).length"
    )
    assert unnamed == 0


def test_printed_page_shows_all_charts_on_white(open_page, report):
    page = open_page(report, scheme="dark")
    background = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = background()
    page.emulate_media(media="print", color_scheme="dark")
    assert background() == "rgb(255, 255, 255)" != dark
    page.evaluate(DRAW_ALL)
    colour = "document.querySelector('.plot').layout.font.color"
    assert page.evaluate(colour) == "#444"
    assert not page.locator(".contents").is_visible() and not page.locator("#theme").is_visible()
    assert page.locator(".chart .main-svg").count() >= page.locator(".chart").count()
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert background() == dark and page.evaluate(colour) == "#98a2b3"


def test_sweep_does_not_overflow(open_page, report):
    check_width(open_page, report)


# -- other kinds


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_committed_experiment_shows_every_value_and_does_not_overflow(open_page, tmp_path, name):
    path = tmp_path / "r.html"
    done("report", ROOT / "experiments" / f"{name}.py", f"--out={path}")
    experiment = experiments.load(name)
    results = collect.collect_rows(experiment.results_dir, experiment, name).results
    page = open_page(path)
    expected = count_values(results) if results.trials else {}
    if len(results.trials) > 1 and expected:
        page.get_by_label("single trials").check()
    drawn = read_charts(page)
    if len(results.trials) > 1:
        assert count_drawn(drawn) == expected
    assert drawn.keys() == expected.keys()
    own = page.locator("figure.own img")
    assert own.count() == 1 and own.evaluate("image => image.naturalWidth") > 100
    if not expected:
        rows = evidence.read_rows(experiment.results_dir)
        assert page.locator('[data-table="rows"] tbody tr').count() == min(100, len(rows))
    check_width(open_page, path)


def test_text_run_shows_its_texts_at_each_step(open_page, tmp_path):
    keys = dict(steps=20, batch_size=16)
    keys |= {"data.name": "pydoc", "data.length": 16, "data.split": "80/10/10"}
    keys |= {"model.layers": 1, "model.heads": 2, "model.kv_heads": 2, "model.width": 16}
    keys |= {"model.context": 16, "schedule.warmup": 4, "run.eval_every": 5, "run.log_every": 5}
    keys |= {"run.sample_every": 10, "run.log": ()}
    run = RunDir(tmp_path / "run")
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    done("train", "--config=gpt_shakespeare_cpu", *flags, f"--workdir={run.path}")
    done("report", run.path)
    page = open_page(run / "report.html")
    series = page.locator(".series")
    shown = lambda: series.locator("pre").inner_text().strip()
    for step, key in ((20, "End"), (10, "ArrowLeft")):
        series.locator(".step").press(key)
        text = (run / "samples" / f"step_{step:08d}.txt").read_text()
        assert " ".join(shown().split()) == " ".join(text.split())
    valid = [row["loss"] for row in run.read_rows() if row["split"] == "valid"]
    (line,) = (t for t in read_charts(page)["valid loss"]["traces"] if t["mean"])
    np.testing.assert_allclose(line["y"], valid, rtol=1e-6)
    check_width(open_page, run / "report.html")


def test_500_trials_open_in_three_seconds(open_page, tmp_path):
    draws = {"hp.lr": grid.loguniform(1e-5, 1e-2), "hp.beta": grid.uniform(0.1, 4)}
    sweep = pages.make_sweep(tmp_path / "s", grid.random(500, draws))
    pages.finish(sweep, steps=tuple(range(0, 100, 5)))
    done("report", sweep.path)
    path, seconds = sweep.path / "report.html", []
    for _ in range(3):  # others may use the machine
        begun = time.perf_counter()
        page = open_page(path)
        page.locator("#overview").wait_for()
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 3, seconds
    page.get_by_label("single trials").check()
    assert count_drawn(read_charts(page)) == count_values(sweep.read_results())
    show_parallel(page)
    assert page.locator("#parallel path").count() == 500
    page.get_by_role("group", name="Groups").get_by_role("button", name="best fifth").click()
    assert page.locator("#parallel path").count() == 100
    check_width(open_page, path)


def test_hostile_names_and_samples_run_no_script(open_page, tmp_path):
    rows = [
        row | {pages.HOSTILE: float(row["step"])}
        for row in pages.trial_rows(np.random.default_rng(0))
    ]
    runs = []
    for i in range(2):
        config = dict(seed=i, best_metric="valid/neg_elbo", data=dict(path=pages.HOSTILE + str(i)))
        name = pages.HOSTILE.replace("/", "") + str(i)
        runs.append(pages.write_run(tmp_path / name, config, rows, reason=pages.HOSTILE))
        (runs[i] / "samples").mkdir()
        (runs[i] / "samples" / "step_00000010.txt").write_text(pages.HOSTILE)
    done("report", *(run.path for run in runs), f"--out={tmp_path / 'r.html'}")
    page = open_page(tmp_path / "r.html")
    page.on("dialog", lambda dialog: pytest.fail("a script ran"))
    page.get_by_label("single trials").check()
    charts = read_charts(page)
    assert any("<script>" in name or "&lt;script" in name for name in charts)
    assert page.locator("img[src='x'], b script").count() == 0
    assert '<script>alert("x")</script>' in page.locator(".card pre").first.inner_text()
    check_width(open_page, tmp_path / "r.html")

"""Parts of a report: colours, links, machines, unknown statuses, images that are not
shown.
"""

import shlex
import shutil

import pytest
import report_pages as pages
from matplotlib.colors import to_hex
from report_pages import GRID, Page, done

from aigc_jax.sweeps import plots, report
from aigc_jax.sweeps.colours import COLOURS, choose_colours
from aigc_jax.sweeps.pages import commands
from aigc_jax.sweeps.pages.environments import rename_devices
from aigc_jax.training import config as configs
from aigc_jax.training import config_files
from aigc_jax.training.run_dir import RunDir
from aigc_jax.utils import documents
from aigc_jax.utils.quantities import format_devices

pytestmark = pytest.mark.unit


@pytest.fixture
def sweep(tmp_path):
    return pages.finish(pages.make_sweep(tmp_path / "s", GRID))


def report_of(sweep, *flags):
    done("report", sweep.path, *flags)
    return Page(sweep.path / "report.html")


def test_arm_has_one_colour_in_tables_charts_and_figure(sweep):
    page = report_of(sweep)
    expected = list(COLOURS[:3])
    assert [group["colour"] for group in page.data["groups"]] == expected
    swatches = [
        names["style"].removeprefix("background: ")
        for tag, names in page.tags
        if tag == "i" and names.get("class") == "swatch"
    ]
    each_trial = [colour for colour in expected for _ in range(3)]
    assert swatches == expected + 3 * expected + each_trial, "summary, differences, trials"
    results, axes = sweep.read_results(), plots.Drawing
    axes = plots.make_figure(
        plots.Drawing(lambda axes: plots.draw_curves(results, "valid/neg_elbo", axes))
    ).axes[0]
    assert [to_hex(line.get_color()) for line in axes.lines] == expected


def test_colours_of_arms_differ():
    assert len(set(choose_colours(20))) == 20 and choose_colours(3) == list(COLOURS[:3])
    assert all(len(colour) == 7 for colour in choose_colours(15))


def test_all_files_beside_the_rows_are_linked(sweep):
    done("figure", f"--workdir={sweep.path}")
    links = {n["href"] for tag, n in report_of(sweep).tags if tag == "a" and "href" in n}
    names = ("rows.csv", "table.md", "figure.png", "figure.pdf", "figure.csv")
    assert {f"./{name}" for name in names} <= links
    (sweep.path / "figure.csv").unlink()
    links = {n["href"] for tag, n in report_of(sweep).tags if tag == "a" and "href" in n}
    assert "./figure.csv" not in links and "./figure.pdf" in links


def test_devices_are_named_once():
    assert format_devices(2, "cpu", "cpu") == "2 CPU devices"
    assert format_devices(1, "gpu", "NVIDIA H100") == "1 x NVIDIA H100 (gpu)"
    assert rename_devices("1 x cpu cpu") == "1 CPU device", "of an earlier version"
    assert rename_devices("2 x gpu NVIDIA H100") == "2 x NVIDIA H100 (gpu)"
    assert rename_devices("2 CPU devices") == "2 CPU devices"


def test_statuses_are_unknown_without_trials_json(sweep, tmp_path):
    done("figure", f"--workdir={sweep.path}")
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "rows.csv").write_bytes((sweep.path / "rows.csv").read_bytes())
    done("report", rows)
    words = Page(rows / "report.html").words
    assert "The rows do not record which trials failed" in words
    assert " done" not in words.split("Results")[0] and "trials 9 " in words
    assert "do not record" not in report_of(sweep).words


def test_images_that_are_not_opened_are_named_with_the_reason(sweep):
    folders = [sweep.trial_dir(t["id"]) / "samples" for t in sweep.read_sweep_json()["trials"]]
    image = folders[0] / "step_00000010.png"
    image.write_bytes(image.read_bytes()[:60])
    pages.write_huge_image(folders[1] / "step_00000010.png", 9_000, 9_000)
    (folders[2] / "step_00000010.png").write_text("no image")
    (folders[3] / "step_00000010.png").write_bytes(b"")
    words = report_of(sweep).words
    for folder in folders[:4]:
        name = "/".join((*folder.parts[-2:], "step_00000010.png"))
        assert words.count(f"Not opened: {name}: ") == 1, name
    assert words.count("it is no image of the formats PNG, JPEG, WEBP, or damaged.") == 2
    assert "pixels are too many" in words and "14 of 18 image files are in this page" in words


def interrupt(run):
    """Leave the first rows of a run, as the end of its process would."""
    stored = run.read_config_json()
    run.write_json("config.json", stored | dict(config=stored["config"] | dict(steps=20)))
    raw = (run / "rows.jsonl").read_bytes().splitlines(True)
    (run / "rows.jsonl").write_bytes(b"".join(raw[:4]))
    run.write_status("running", 10)


def test_interrupted_trials_are_said_with_their_step(sweep):
    runs = [sweep.trial_dir(t["id"]) for t in sweep.read_sweep_json()["trials"]]
    for run in runs:
        interrupt(run)
    page = report_of(sweep)
    step, remedy = "at step 10 of 20", "the same sweep command resumes"
    sentence = f"9 of 9 trials are interrupted, {step}; {remedy} them."
    assert page.words.count(sentence) == 1 and "9 trials: 9 interrupted" not in page.words
    assert page.tables["missing"][1][1:] == ["interrupted", "10", f"{step}; {remedy} it"]
    report.write_sweep_results(sweep, report=lambda line, **_: None)
    assert (sweep.path / "table.md").read_text().count(sentence) == 1
    assert sentence in report.choose_default_figure(sweep.read_results()).notes


def test_interrupted_run_is_called_a_run(sweep, tmp_path):
    run = sweep.trial_dir(sweep.read_sweep_json()["trials"][0]["id"])
    alone = RunDir(shutil.copytree(run.path, tmp_path / "alone"))
    interrupt(alone)
    done("report", alone.path)
    page = Page(alone.path / "report.html")
    words = "at step 10 of 20; the same train command resumes it"
    assert f"1 of 1 run is interrupted, {words}." in page.words
    assert page.tables["missing"][1][1:] == ["interrupted", "10", words]


def test_damaged_configs_and_missing_trials_are_named_once(sweep):
    runs = [sweep.trial_dir(t["id"]) for t in sweep.read_sweep_json()["trials"]]
    for run, text in zip(runs, ('{"a":', "[]"), strict=False):
        (run / "config.json").write_text(text)
    (group,) = sweep.groups()
    digest = dict(rows=[RunDir(run.path).digest_rows() for run in group.dirs])
    meta = dict(step=20, failed=[None] * 9, best=[None] * 9, files={})
    (group.path / "checkpoints" / "20").mkdir(parents=True)
    documents.write(group.path / "checkpoints" / "20" / "meta.json", meta | digest)
    shutil.rmtree(runs[2].path)
    page = report_of(sweep)
    for run, words in zip(runs, ("is damaged: ", "is damaged: ", "is missing"), strict=False):
        name = run.path.name
        assert page.words.count(f"{name} is left out: ") == 1
        (line,) = (line for line in page.tables["missing"] if line[0] == name)
        assert line[1] == "failed: damaged" and words in line[3] and "train" not in line[3]
        assert "restart: aigc sweep ... --restart" in line[3]
    assert "leaving out 3 trials that failed or are damaged" in page.words
    assert done("status", sweep.path).rstrip().endswith("rows are not checked: aigc report SWEEP")


@pytest.mark.parametrize(
    "names, text", [(("csv",), "csv"), (["csv", "wandb"], "csv,wandb"), ((), "()")]
)
def test_command_has_names_without_quotes(names, text):
    origin = commands.Origin("configs/vae_digits.py", {"run.log": names})
    command = commands.format_train_command(origin, "x")
    assert shlex.quote(f"--config.run.log={text}") in command.split(" ")
    config = configs.override(config_files.load("vae_digits"), {"run.log": text})
    assert config.run.log == tuple(names)


EXPERIMENT = """
from aigc_jax.sweeps.experiment import Experiment

EXPERIMENT = Experiment(
    config="vae_digits", sweep=list, figure=lambda rows, axes: axes.plot([0, 1], [0, 1])
)
"""


def test_own_figure_that_is_missing_or_damaged_is_said(sweep, tmp_path):
    (tmp_path / "x.py").write_text(EXPERIMENT)
    flag = f"--experiment={tmp_path / 'x.py'}"
    assert "not drawn yet: figure.png is missing." in report_of(sweep, flag).words
    done("figure", f"--workdir={sweep.path}", flag)
    page = report_of(sweep, flag)
    assert "figure of the experiment is" not in page.words
    assert any(tag == "img" and "figure" in names["alt"] for tag, names in page.tags)
    (sweep.path / "figure.png").write_bytes((sweep.path / "figure.png").read_bytes()[:900])
    assert "The figure of the experiment is not shown: " in report_of(sweep, flag).words

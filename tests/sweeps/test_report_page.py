"""Reports as HTML files: numbers, escaping, what is missing, sizes."""

import base64
import hashlib
import importlib.util
import itertools
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
import report_pages as pages
from helpers import ROOT, environment
from report_pages import GRID, HOSTILE, Page, done, refused

from aigc_jax.sweeps import evidence, grid, request, request_json, statistics, tables
from aigc_jax.sweeps import experiment as experiments
from aigc_jax.sweeps import report as sweep_reports
from aigc_jax.sweeps.pages import charts, collect, commands, samples, summary, write
from aigc_jax.sweeps.pages import page as rendering
from aigc_jax.sweeps.sweep import Sweep
from aigc_jax.training import config as configs
from aigc_jax.training import config_files, config_identity
from aigc_jax.utils.text_table import parse_markdown

pytestmark = pytest.mark.unit

QUIET = dict(report=lambda line, **_: None)
LIMIT = 8_000_000  # bytes of a page
EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return pages.finish(pages.make_sweep(tmp_path_factory.mktemp("report") / "s", GRID))


@pytest.fixture(scope="module")
def page(sweep):
    done("report", sweep.path)
    return Page(sweep.path / "report.html")


# -- numbers


def test_summary_equals_table_md(sweep, page):
    sweep_reports.write_sweep_results(sweep, **QUIET)
    (table, *_) = parse_markdown((sweep.path / "table.md").read_text())
    plain = [[cell.replace("*", "") for cell in row] for row in (table.header, *table.rows)]
    assert page.tables["summary"] == plain


def test_trials_and_charts_equal_rows_csv(sweep, page):
    sweep_reports.write_sweep_results(sweep, **QUIET)
    rows = evidence.read_rows(sweep.path)
    shown = {line[0]: line for line in page.tables["trials"][1:]}
    names = [trial["id"] for trial in sweep.read_sweep_json()["trials"]]
    assert list(shown) == names == page.data["trials"]
    for row in (row for row in rows if row["split"] == "test"):
        assert f"{row['neg_elbo']:.6g}" in shown[row["trial"]]
    (chart,) = (c for c in page.data["charts"] if c["name"] == "valid neg_elbo")
    for line in chart["trials"]:
        own = [r for r in rows if r["trial"] == names[line["trial"]] and r["split"] == "valid"]
        assert page.data["steps"][line["x"]] == [row["step"] for row in own]
        np.testing.assert_allclose(line["y"], [row["neg_elbo"] for row in own], rtol=1e-6)
    for line in chart["means"]:
        y = np.array([t["y"] for t in chart["trials"] if t["arm"] == line["arm"]])
        np.testing.assert_allclose(line["y"], y.mean(0), rtol=1e-5)
        np.testing.assert_allclose(
            np.subtract(line["high"], line["y"]), y.std(0, ddof=1) / 3**0.5, rtol=1e-3
        )
        assert line["n"] == 3


def test_final_values_of_parameters_are_those_of_the_test_rows(sweep, page):
    finals = page.data["finals"]["test neg_elbo"]
    rows = [row for row in sweep.rows() if row["split"] == "test"]
    np.testing.assert_allclose(finals, [row["neg_elbo"] for row in rows], rtol=1e-6)
    assert [axis["name"] for axis in page.data["axes"]] == ["hp.beta"]
    assert page.data["axes"][0]["values"] == [trial["hp.beta"] for trial in sweep.read_results()[1]]


def test_best_mean_is_bold_only_where_the_direction_is_known(page):
    header, *lines = page.tables["summary"]
    column = header.index("test neg_elbo")
    best = min(lines, key=lambda line: float(line[column].split(" (")[0]))
    assert page.bold == [best[column]]


def test_best_mean_of_a_maximized_metric_is_the_largest(sweep):
    results = sweep.read_results()
    marks = {}
    for mode, pick in (("min", min), ("max", max)):
        table = summary.summarize_arms(results._replace(mode=mode))
        i = table.names.index("neg_elbo")
        marks[mode] = [arm.cells[i].is_best for arm in table.arms]
        centres = [arm.cells[i].centre for arm in table.arms]
        assert marks[mode].index(True) == centres.index(pick(centres))
    assert marks["min"] != marks["max"]


def test_differences_are_those_of_a_paired_test(sweep):
    """Of the common seeds, with Holm's correction over the arms of a metric."""
    table = summary.summarize_arms(sweep.read_results())
    found = summary.compare_to_baselines(table, range(len(table.arms)))
    for i, k in itertools.product(range(len(table.arms)), range(len(table.names))):
        values = {arm.values: arm.cells[k].values for arm in table.arms}
        records = statistics.compare_arms(values, table.arms[i].values)
        assert [line[k] for line in found[i] if line[k] is not None] == records
        assert found[i][i][k] is None


def test_differences_say_what_they_are():
    one = statistics.PairedDifference((1,), 2.0, None, None, 1, None, None, None)
    assert summary.format_difference(one, 3) == "+2, n = 1"
    assert summary.format_difference(None, 3) == summary.describe_power(one) == ""
    sure = statistics.PairedDifference((1,), -2.0, -3.0, -1.0, 5, 0.01, 0.02, 4)
    assert summary.format_difference(sure, 5) == "\u22122 [\u22123, \u22121], p = 0.02"
    assert summary.describe_power(sure) == "n = 4 for 80 % power"
    assert summary.is_significant(sure) and not summary.is_significant(one)


def test_each_arm_may_be_the_baseline(page):
    lines = page.tables["differences"][1:]
    assert len(lines) == 9 and sum("baseline" in line for line in lines) == 3
    assert [tag for tag, attrs in page.tags if "data-baseline" in attrs] == ["tbody"] * 3


def test_thinned_curves_retain_the_last_step():
    curve = {"a": {step: float(step) for step in range(0, 100, 7)}}
    thin = charts.thin_steps(curve, 4)["a"]
    assert list(thin) == [0, 28, 56, 84, 98] and charts.thin_steps(curve, 1) is curve


# -- contents


def test_page_shows_question_grid_seeds_origin_and_links(sweep, page):
    for words in ("0.5, 1, 2", "0, 1, 2", "1 CPU device", "a" * 12, "jax", "0.10"):
        assert words in page.words, words
    hrefs = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs["href"][0] != "#"]
    from urllib.parse import unquote

    assert len(hrefs) >= 9 and all((sweep.path / unquote(href)).exists() for href in hrefs)
    assert {key[0] for key in page.tables["configs"]} == {"key that differs", "hp.beta", "seed"}


def test_every_image_is_in_the_page(page):
    (series,) = page.data["series"]
    assert len(series) == 9 and all(set(steps) == {"10", "20"} for steps in series.values())
    for steps in series.values():
        for uri in steps.values():
            assert uri.startswith("data:image/webp;base64,UklGR")


def test_policy_allows_the_two_scripts_and_no_request(page):
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == rules["media-src"] == "data:"
    digest = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert rules["script-src"] == " ".join(f"'sha256-{digest(s)}'" for s in page.scripts[1:])
    assert len(page.scripts) == 3 and page.scripts[1].count("plotly.js v") >= 1
    loads = [a for t, a in page.tags if t != "a" for k in ("src", "href") if (v := a.get(k))
             if not v.startswith("data:")]  # fmt: skip
    assert not loads and not any(tag in ("iframe", "object", "form") for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_experiment_adds_question_claims_and_its_table(tmp_path):
    done("report", "vae_beta", f"--out={tmp_path / 'r.html'}")
    page = Page(tmp_path / "r.html")
    assert "Rate against distortion of a beta-VAE" in page.words
    (claim,) = page.tables["claims"][1:]
    assert claim[1] == "reproduced" and claim[2:4] == ["1.0", "1.0"]
    assert page.tables["own"][0][0] == "beta" and len(page.tables["own"]) == 13
    assert "--config=configs/vae_mnist.py" in page.source


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_report_of_committed_rows_has_every_metric_and_table(tmp_path, name):
    done("report", ROOT / "experiments" / f"{name}.py", f"--out={tmp_path / 'r.html'}")
    page = Page(tmp_path / "r.html")
    experiment = experiments.load(name)
    rows = evidence.read_rows(experiment.results_dir)
    (table, *_) = parse_markdown((experiment.results_dir / "table.md").read_text())
    assert page.tables["own"] == [list(row) for row in table.format_rows()]
    assert len(page.tables.get("claims", [1])) == 1 + len(experiment.claims)
    results = collect.collect_rows(experiment.results_dir, experiment, name).results
    names = tables.list_metrics(results.rows, results.varied) if results.trials else []
    steps = {}
    for row in results.rows if results.trials else ():
        for metric in names:
            split, _, key = metric.partition("/")
            if row["split"] == split and row.get(key) is not None:
                trials = steps.setdefault(metric.replace("/", " ", 1), {})
                trials.setdefault(row["trial"], set()).add(row["step"])
    curves = {m.removeprefix("rows ") for m, t in steps.items() if max(map(len, t.values())) > 1}
    assert {chart["name"] for chart in page.data["charts"]} == curves
    assert curves or len(page.tables["rows"]) == 1 + min(len(rows), rendering.MOST_ROWS)
    assert (tmp_path / "r.html").stat().st_size < LIMIT


def test_runs_are_named_by_the_keys_in_which_they_differ(sweep, tmp_path):
    runs = sorted((sweep.path / "trials").iterdir())
    done("report", *runs[:4], f"--out={tmp_path / 'r.html'}")
    page = Page(tmp_path / "r.html")
    assert page.tables["summary"][0][:2] == ["beta", "n"] and len(page.data["trials"]) == 4
    done("report", runs[0], "--metric=valid/kl")
    one = Page(runs[0] / "report.html")
    assert one.tables["summary"][0][:2] == ["n", "valid kl"] and len(one.data["series"][0]) == 1


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["nowhere"], "nowhere is no directory of a run or a sweep, and no experiment"),
        (["vae_beta"], "--out=FILE.html is needed"),
        (["vae_beta", "--out=r.txt"], "must end in .html"),
        (["vae_beta", "--out=r.html", "--metric=test/neg_elb"], "did you mean 'test/neg_elbo'"),
        (["vae_beta", "runs"], "vae_beta is no run"),
        (["gs://bucket/run"], "is a URL"),
        (["."], "has no run, no sweep and no rows.csv"),
    ],
)
def test_mistakes_are_one_line_errors(words, sentence):
    refused(["report", *words], sentence)


# -- unfinished and failed trials


def test_report_of_an_unfinished_sweep_names_what_is_missing(tmp_path):
    sweep = pages.make_sweep(tmp_path / "s", GRID)
    done("report", sweep.path)  # before any trial has begun
    assert "No trial has a row yet." in Page(sweep.path / "report.html").words
    pages.finish(sweep, {0, 1, 3})
    ids = [trial["id"] for trial in sweep.read_sweep_json()["trials"]]
    sweep.trial_dir(ids[1]).write_status("failed: diverged", 20, metric="d_loss", reason="NaN")
    sweep.trial_dir(ids[3]).write_status("running", 10)
    done("report", sweep.path)
    page = Page(sweep.path / "report.html")
    missing = {line[0]: line[1:] for line in page.tables["missing"][1:]}
    assert set(missing) == set(ids) - {ids[0]}
    assert missing[ids[1]] == ["failed: diverged", "20", "NaN"]
    assert missing[ids[3]][0] == "interrupted" and missing[ids[4]][0] == "waiting"
    sweep_reports.write_sweep_results(sweep, **QUIET)
    (table, *notes) = parse_markdown((sweep.path / "table.md").read_text())
    assert [line[1] for line in page.tables["summary"]] == [
        "n",
        "1 of 3, 1 diverged",
        "1 of 3",
        "0 of 3",
    ]
    for note in "\n".join(notes).splitlines():
        assert note in page.words, note
    (chart,) = (c for c in page.data["charts"] if c["name"] == "valid kl")
    assert [line.get("ended", False) for line in chart["trials"]] == [False, True, False]


# -- commands


def parse_command(command):
    """The config of a command `aigc train`, read as the command line does."""
    from aigc_jax.cli import main as cli

    program, verb, *words = shlex.split(command)
    overrides, rest = cli.split_overrides(words)
    assert (program, verb) == ("aigc", "train") and len(rest) == 2
    config = config_files.load(rest[0].removeprefix("--config="))
    return configs.override(config, overrides)


@pytest.mark.parametrize("metric", ["", "test/kl"])
def test_command_of_each_trial_has_the_identity_of_the_trial(tmp_path, metric):
    asked = request.make_request(
        "vae_digits",
        None,
        [grid.values("hp.beta", 0.5, 2.0), grid.values("latent_dims", (3,), (2, 2))],
        2,
        {"steps": "16", "model.widths": "((12,),(8,))"},
    )
    sweep = Sweep(tmp_path / "s")
    sweep.add_trials(asked.trials, asked.source)
    request_json.write_request_json(sweep.path, asked.experiment, asked.config, asked.changes)
    records = collect.collect_sweep(sweep.path, None, "").records
    assert len(records) == 8
    for record in records:
        command = commands.format_train_command(record.origin, record.name)
        identity = config_identity.hash_identity(parse_command(command))
        assert record.name.endswith(identity)


def test_commands_of_a_directory_accumulate(tmp_path, monkeypatch):
    asked = request.make_request("vae_digits", None, [grid.values("hp.beta", 0.5)], 0, {})
    for words in (["a b", "--seeds=1"], ["--seeds=2"], ["--seeds=2"]):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/aigc", "sweep", *words])
        request_json.write_request_json(tmp_path, asked.experiment, asked.config, asked.changes)
    stored = json.loads((tmp_path / "request.json").read_text())
    assert stored["commands"] == [
        ["aigc", "sweep", "a b", "--seeds=1"],
        ["aigc", "sweep", "--seeds=2"],
    ]


# -- untrusted contents


def make_hostile_run(path):
    generator = np.random.default_rng(0)
    rows = [row | {HOSTILE: 1.0, "__proto__": 2.0} for row in pages.trial_rows(generator)]
    config = dict(best_metric="valid/neg_elbo", best_mode="min", seed=0, data=dict(path=HOSTILE))
    run = pages.write_run(
        path,
        config,
        rows,
        "failed: <b>" + HOSTILE,
        reason=HOSTILE,
        stored=dict(source=HOSTILE + ".py", changes={"data.path": [None, HOSTILE]}),
        environment=dict(devices=[HOSTILE], commit=HOSTILE, command=["aigc", HOSTILE]),
    )
    (run / "samples").mkdir()
    (run / "samples" / "step_00000010.txt").write_text(HOSTILE * 100)
    (run / "samples" / "step_00000020.txt").write_text(
        "</script><script>alert(2)</script>" * 150_000
    )
    name = HOSTILE.replace("/", "")[:40]
    pages.write_image(run / "samples" / f"{name}.png", 0)
    pages.write_huge_image(run / "samples" / "step_00000010.png", 60_000, 60_000)
    pages.write_huge_image(run / "samples" / "step_00000020.png", 8_000, 8_000)
    (run / "samples" / "step_00000030.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (run / "samples" / "step_00000040.png").symlink_to("/etc/passwd")
    pages.write_sound(run / "samples" / f"{name}.wav")
    pages.write_sound(run / "samples" / "step_00000020.wav", 60)
    return run


def test_hostile_run_injects_nothing(tmp_path):
    run = make_hostile_run(tmp_path / HOSTILE.replace("/", ""))
    done("report", run.path, f"--out={tmp_path / 'r.html'}")
    page = Page(tmp_path / "r.html")
    kinds = {tag for tag, _ in page.tags}
    assert len(page.scripts) == 3 and not kinds & {"b", "iframe"}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not any(a.get("src") == "x" for _, a in page.tags)
    before = page.source.index('id="data"')
    assert "\x1b" not in page.source[: page.source.index("</script>", before)]
    assert "</script><script>alert" not in page.source
    assert "<script>alert" in page.words  # shown as text
    # labels of Plotly are read as HTML: they have no tag
    labels = (
        [c["name"] for c in page.data["charts"]] + list(page.data["finals"]) + page.data["arms"]
    )
    assert labels and not any("<" in label for label in labels)
    assert (tmp_path / "r.html").stat().st_size < LIMIT


def test_hostile_samples_are_cut_refused_or_linked(tmp_path):
    run = make_hostile_run(tmp_path / "run")
    found = samples.embed_samples(samples.list_samples([run]), [0])
    text = found.series["text: samples"][0]
    assert (
        len(text[20]) < samples.MOST_LETTERS + 100
        and "cut here; the file has 5,100,000 bytes" in text[20]
    )
    assert "\x1b" not in text[10] and r"\x1b[31m" in text[10]
    assert [key for key in found.series if key.startswith("image")] == [
        f"image: sampled: {HOSTILE.replace('/', '')[:40]}"
    ]
    notes = " ".join(found.notes)
    assert "step_00000010.png: Image size (3600000000 pixels)" in notes
    assert "8,000 x 8,000 pixels are too many" in notes and "1 sound too large" in notes
    assert [bool(uri) for _, uri in found.sounds] == [True, False] or found.sounds[0][0].step == 20
    assert sum(bool(uri) for _, uri in found.sounds) == 1


def test_sounds_are_playable(tmp_path):
    run = pages.write_run(
        tmp_path / "run", dict(seed=0), pages.trial_rows(np.random.default_rng(0))
    )
    pages.write_sound(run / "samples" / "step_00000020.wav")
    done("report", run.path)
    page = Page(run / "report.html")
    (audio,) = (attrs for tag, attrs in page.tags if tag == "audio")
    assert audio["src"].startswith("data:audio/wav;base64,UklGR") and "controls" in audio


def test_trial_names_that_are_paths_are_refused(tmp_path):
    sweep = pages.make_sweep(tmp_path / "s", GRID)
    document = sweep.read_sweep_json()
    document["trials"][0]["id"] = "../../etc"
    from aigc_jax.utils import documents

    documents.write(sweep.path / "sweep.json", document)
    refused(["report", sweep.path], "which is not a trial id")


# -- packages and size


def test_report_needs_no_jax_and_no_plotly_module(sweep, tmp_path):
    code = (
        "import sys\nfrom aigc_jax.cli import main\n"
        "code = main.main(['report', sys.argv[1], '--out=' + sys.argv[2]])\n"
        "print(code, [n for n in ('jax', 'flax', 'matplotlib', 'pandas') if n in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(sweep.path), str(tmp_path / "r.html")]
    found = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, check=True, env=environment()
    )
    assert found.stdout.splitlines()[-1] == "0 []"


def hide_packages(monkeypatch):
    real = importlib.util.find_spec
    hide = lambda name, *more: None if name in rendering.PACKAGES else real(name, *more)
    monkeypatch.setattr(importlib.util, "find_spec", hide)


def test_missing_packages_are_one_error_and_do_not_fail_a_sweep(sweep, tmp_path, monkeypatch):
    hide_packages(monkeypatch)
    refused(
        ["report", sweep.path], "a report needs plotly and jinja2: pip install 'aigc_jax[report]'"
    )
    said = []
    write.write_final_report(sweep.path, None, said.append)
    assert said == ["report: not written without plotly and jinja2 (aigc_jax[report])"]


def test_failing_report_does_not_fail_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "make_page", lambda *_: 1 / 0)
    said = []
    write.write_final_report(pages.make_sweep(tmp_path, GRID).path, None, said.append)
    assert said == ["report: not written: division by zero"]


def test_many_arms_are_grouped_by_rank_and_direction(tmp_path):
    draws = {"hp.lr": grid.loguniform(1e-5, 1e-2)}
    sweep = pages.finish(pages.make_sweep(tmp_path, grid.random(25, draws)), {*range(20)}, False)
    table = summary.summarize_arms(sweep.read_results())
    means = lambda group: [table.arms[i].cells[0].centre for i in group.arms]
    for mode, worse in (("min", 1), ("max", -1)):
        groups, note = charts.group_arms(table, "valid/neg_elbo", mode)
        assert [len(group.arms) for group in groups] == [4] * 5 + [5]
        assert worse * max(means(groups[0]), key=lambda m: worse * m) < worse * means(groups[1])[0]
        assert note == "25 combinations of values, in fifths by the rank of test neg_elbo."
    groups, _ = charts.group_arms(table, "valid/other", "max")
    assert [group.label for group in groups[:5]] == list(charts.VALUES)
    page = done("report", sweep.path) and Page(sweep.path / "report.html")
    assert note in page.words and "differences" not in page.tables


EXPERIMENT = '''"""Does beta matter?

    aigc sweep --experiment=x
"""
from aigc_jax.sweeps.experiment import Claim, Experiment


def final(rows):
    return [row["kl"] for row in rows if row["split"] == "test"]


EXPERIMENT = Experiment(
    config="vae_digits",
    sweep=list,
    metric="test/kl",
    table=lambda rows: "| n |\\n|---|\\n| %d |\\n" % len(final(rows)),
    claims=(
        Claim(what="KL", source="a paper", published=1.5, values=final, tolerance=0.1),
        Claim(what="x", source="y", published=1, values=lambda rows: [final(rows)[EXPECTED]],
              tolerance=1),
    ),
)
'''


@pytest.mark.parametrize("expected, outcome", [(2, ["reproduced"] * 2), (99, None)])
def test_experiment_of_a_sweep_adds_claims_or_says_what_they_lack(tmp_path, expected, outcome):
    (tmp_path / "x.py").write_text(EXPERIMENT.replace("EXPECTED", str(expected)))
    sweep = pages.finish(pages.make_sweep(tmp_path / "s", GRID), {0, 1, 3})
    done("report", sweep.path, f"--experiment={tmp_path / 'x.py'}")
    page = Page(sweep.path / "report.html")
    assert "Does beta matter?" in page.words and page.tables["own"] == [["n"], ["3"]]
    assert page.tables["summary"][0][:3] == ["beta", "n", "test kl"]
    assert [line[1] for line in page.tables.get("claims", [])[1:]] == (outcome or [])
    missing = "Claims need the missing trials (list index out of range)."
    assert (missing in page.words) == (outcome is None)


def test_page_without_the_experiment_has_the_question_of_the_request(tmp_path):
    (tmp_path / "x.py").write_text(EXPERIMENT.replace("EXPECTED", "0").replace("sweep=list",
        "sweep=lambda: [{'seed': s} for s in range(2)]"))  # fmt: skip
    asked = request.make_request(None, tmp_path / "x.py")
    sweep = Sweep(tmp_path / "s")
    sweep.add_trials(asked.trials, asked.source)
    request_json.write_request_json(sweep.path, asked.experiment, asked.config, asked.changes)
    pages.finish(sweep)
    done("report", sweep.path)
    page = Page(sweep.path / "report.html")
    assert "Does beta matter?" in page.words and "claims" not in page.tables
    assert "aigc train --config=configs/vae_digits.py --config.seed=1" in page.source

"""The site: generated pages equal their sources, every page is in the navigation, and
every picture says how it was made.
"""

import fnmatch
import re

import documentation as docs
import pytest
from helpers import ROOT
from runs import make_sweep, train
from tiny_configs import tiny

from aigc_jax.sweeps import grid, group, report
from aigc_jax.sweeps.claims import compare_claim, decide_outcome
from aigc_jax.sweeps.experiment import Claim
from aigc_jax.sweeps.pages.write import write_final_report
from aigc_jax.utils.errors import UserError
from aigc_jax.utils.python_files import import_python_file

pytestmark = pytest.mark.unit

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def generator(name):
    return import_python_file(DOCS / f"{name}.py", "script")


def test_results_page_is_generated_from_the_committed_rows():
    page = generator("make_results").make_page()
    assert (DOCS / "results.md").read_text() == page, "run: python docs/make_results.py"
    counts = re.search(r"^Of \d+ numbers (.*)", page, re.M)[0]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert counts.lower() in readme, f"README.md has other counts: {counts}"


def test_benchmark_page_is_generated_from_the_committed_timings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = import_python_file(ROOT / "benchmarks" / "bench.py", "script")
    assert bench.PAGE.read_text() == bench.make_page(), "run: python benchmarks/bench.py --page"
    rows = bench.last_rows()
    assert rows.keys() <= bench.find_cases().keys()
    for case, row in rows.items():
        for name, (ours, theirs) in row["losses"].items():
            assert abs(ours - theirs) <= 1e-4 * max(1, abs(theirs)), (case, name)


def test_reference_pages_are_generated_from_the_code():
    it = generator("make_reference")
    assert it.CLI.read_text() == it.make_cli_page(), "run: python docs/make_reference.py"
    assert it.DOCUMENTS.read_text() == it.make_files_page(), "run: python docs/make_reference.py"


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"^ +- .*?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert len(listed) == len(set(listed))
    assert set(listed) == {path.relative_to(DOCS).as_posix() for path in PAGES}


def test_every_picture_is_followed_by_its_config_and_command():
    """A caption in italics after the picture, or after the table that contains it."""
    wrong = []
    for path in [ROOT / "README.md", *PAGES]:
        paragraphs = re.split(r"\n\s*\n", path.read_text())
        for i, text in enumerate(paragraphs):
            if not IMAGE.search(text):
                continue
            captions = [p for p in paragraphs[i + 1 :] if not IMAGE.search(p)][:1]
            is_caption = lambda p: re.fullmatch(r"\*[^*].*\*", p.strip(), re.S)
            says = re.compile(r"`aigc \w+|`python docs/")
            names = re.compile(r"config|--experiment=", re.I)
            if not any(is_caption(p) and says.search(p) and names.search(p) for p in captions):
                wrong.append(f"{path.relative_to(ROOT)}: {IMAGE.findall(text)}")
    assert not wrong, "\n".join(wrong)


def first_column(heading) -> set[str]:
    """Patterns of the first column of a table in docs/reference/files.md."""
    text = (DOCS / "reference" / "files.md").read_text()
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", text, re.M | re.S)[1]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.M)
    return {span for cell in cells for span in docs.spans(cell)}


def files_below(folder) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def check_listed(found, patterns, optional):
    unlisted = [f for f in found if not any(fnmatch.fnmatch(f, p) for p in patterns)]
    assert not unlisted, f"docs/reference/files.md lacks {unlisted}"
    absent = {p for p in patterns if not any(fnmatch.fnmatch(f, p) for f in found)}
    assert absent == optional


def test_files_page_lists_the_files_of_a_run(tmp_path):
    train(
        tiny("vae", steps="8 steps", run__log=("csv", "tensorboard"), run__sample_every="8 steps"),
        tmp_path,
    )
    optional = {"evaluations.jsonl", "samples/*.txt", "sampled/*", "assets/tokenizer.json"}
    optional |= {"report.html"}
    optional |= {"checkpoints/*/state.npz", "checkpoints/*/best.npz", "profile/*", "wandb/*"}
    optional |= {"environment.json"} - files_below(tmp_path)  # of the command alone
    check_listed(files_below(tmp_path), first_column("A run"), optional)


def test_files_page_lists_the_files_of_a_sweep(tmp_path):
    it = make_sweep(tmp_path / "s", grid.seeds(2))
    (one,) = it.groups()
    assert group.train_group(one.path, "map", report=lambda line: None) == 0
    report.write_sweep_results(it, None, "")
    write_final_report(it.path, None, print)
    optional = {"groups/*/rung_*", "groups/*/rung.json", "groups/*/heartbeat.json", "k8s-job.yaml"}
    optional |= {"study.journal", "groups/*/log.txt", "request.json", ".launcher"}
    optional |= {".lock"} - files_below(it.path)
    check_listed(files_below(it.path), first_column("A sweep"), optional)


def make_claim(**more):
    fields = dict(what="loss", source="a paper", published=2.0, values=list, tolerance=0.1)
    return Claim(**fields | more)


@pytest.mark.parametrize(
    "more, mean, verdict",
    [
        ({}, 2.09, "reproduced"),
        ({}, 1.8, "differs by -0.20"),
        ({"better": "lower"}, 1.0, "reproduced"),
        ({"better": "lower"}, 2.5, "not reached, by 0.50"),
        ({"better": "higher"}, 1.5, "not reached, by 0.50"),
        ({"better": "higher", "is_baseline": True}, 3.0, "reached"),
        ({"digits": 0}, 5.0, "differs by +3"),
        ({"better": "lower"}, float("nan"), "not reached, by nan"),
    ],
)
def test_verdict_follows_the_tolerance_and_the_better_side(more, mean, verdict):
    assert decide_outcome(make_claim(**more), mean, 2.0) == verdict


def test_claims_compare_the_mean_over_seeds():
    it = compare_claim(make_claim(published=lambda rows: max(rows)), [1.0, 2.0, 6.0])
    assert (it.mean, it.published, it.outcome) == (3.0, 6.0, "differs by -3.00")
    assert it.error == pytest.approx((7 / 3) ** 0.5)  # variance 7, of three seeds
    assert compare_claim(make_claim(), [2.0]).error is None
    assert compare_claim(make_claim(), []).outcome == "differs by +nan"


@pytest.mark.parametrize(
    "field, value",
    [("tolerance", -1), ("better", "less"), ("values", 3), ("published", "2"), ("digits", 1.5)],
)
def test_invalid_claims_are_refused(field, value):
    with pytest.raises(UserError, match=rf"^Claim\.{field} = .* must be"):
        make_claim(**{field: value})


def test_pages_that_load_from_the_network_are_detected():
    pytest.importorskip("mkdocs", reason="no mkdocs: make docs")
    find = generator("hooks").find_loads
    for text in (
        '<script async src="https://unpkg.com/x"></script>',
        "<link rel=stylesheet href=//fonts.example/css>",
        "@font-face { src: url(https://fonts.example/a.woff) }",
        '<img alt="a" src="http://example.org/a.png">',
    ):
        assert find(text), text
    for text in ('<a href="https://example.org">', '<link rel=canonical href="https://x.org/">',
                 '<script src="../assets/a.js">', "url(data:image/svg+xml,a)"):  # fmt: skip
        assert not find(text), text

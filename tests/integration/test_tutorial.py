"""docs/tutorial.md: its code applies to the source and its commands run, in order, with
fewer steps.
"""

import shlex
import subprocess
import sys

import pytest
from helpers import QUICK, ROOT
from page_blocks import apply_blocks, copy_repository, environment, list_commands

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the repository with the additions of the page."""
    root = copy_repository(tmp_path_factory.mktemp("tutorial"))
    apply_blocks(PAGE, root)
    return root


def run(root, words):
    done = subprocess.run(
        [sys.executable, "-m", "aigc_jax", *words],
        cwd=root, env=environment(root, XLA_FLAGS=QUICK), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stderr[-2000:])
    return done.stdout


def commands() -> list[list[str]]:
    """The words after `aigc` of each command of the page."""
    lines = [shlex.split(line, comments=True) for line in list_commands(PAGE)]
    assert all(words[0] in ("aigc", "python", "make") for words in lines)
    return [words[1:] for words in lines if words[0] == "aigc"]


def test_regularizer_of_the_page_is_listed(extended):
    listed = [words for words in commands() if words[0] == "list"]
    assert len(listed) == 4
    shown = [run(extended, words) for words in listed]
    assert "zero_centred" in shown[0] and "slope 0 between" in shown[2]
    assert "hp.zero_centred=10" in shown[3]
    assert "15 trials" in run(extended, next(w for w in commands() if "--dry_run" in w))


@pytest.mark.slow
def test_commands_of_the_page_run_in_order(extended):
    """With 40 steps; the page has the numbers of the complete run."""
    experiment = extended / "experiments" / "zero_centred.py"
    text = experiment.read_text()
    short = '"steps": "40 steps", "run.eval_every": "20 steps"'
    assert text.count('"steps": "4000 steps"') == 1
    experiment.write_text(text.replace('"steps": "4000 steps"', short))
    for words in commands():
        words = [word.replace("steps=4000", "steps=40") for word in words]
        globs = [sorted(extended.glob(word)) if "*" in word else [word] for word in words]
        assert all(globs), f"the shell finds no file: {words}"
        run(extended, [str(word) for found in globs for word in found])
    folder = extended / "runs" / "zero_centred"
    assert {"rows.csv", "table.md", "figure.png"} <= {p.name for p in folder.iterdir()}
    assert len(list((folder / "trials").iterdir())) == 15
    assert (extended / "experiments" / "results" / "zero_centred" / "rows.csv").is_file()

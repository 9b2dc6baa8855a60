"""docs/adding.md: its blocks apply to the source, and what they add works."""

import subprocess
import sys

import pytest
from helpers import QUICK, ROOT
from options import SHORT
from page_blocks import apply_blocks, copy_repository, environment, list_commands

PAGE = ROOT / "docs" / "adding.md"
COMMANDS = list_commands(PAGE)
# Tests that walk the tables, or name each of their entries.
SHARED = (
    "tests/training/test_schema.py",
    "tests/methods/test_gan_losses.py::test_gan_losses_match_published_formulas",
    "tests/metrics/test_metrics.py",
    "tests/methods/test_optimizers.py::test_two_optimizer_steps_match_numpy",
    "tests/methods/test_methods.py",
    "tests/data/test_tokenizers.py",
    "tests/integration/test_options.py",
)
# The rows of options differ with every entry of a table.
DESELECTED = "--deselect=tests/integration/test_options.py::test_runs_with_every_option"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the repository with every addition of the page."""
    root = copy_repository(tmp_path_factory.mktemp("extended"))
    apply_blocks(PAGE, root)
    return root


@pytest.mark.unit
def test_every_block_applies_to_the_source(extended):
    changed = [p for p in extended.rglob("*.py") if p.read_text() != original(p, extended)]
    assert len(changed) > 20
    for path in changed:
        compile(path.read_text(), str(path), "exec")
    configs = [p for p in changed if p.parent.name == "configs"]
    program = (
        "import sys; from aigc_jax.training.config_files import load; list(map(load, sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *configs],
        cwd=extended, env=environment(extended), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and len(configs) > 1, done.stderr[-2000:]


@pytest.mark.unit
@pytest.mark.parametrize("words", [["check"], ["format", "--check"]])
def test_additions_pass_the_linter(extended, words):
    pytest.importorskip("ruff", reason="needs the linter of the extra dev")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words, "--no-cache", "--quiet", "."],
        cwd=extended, env=environment(extended), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def original(path, root):
    source = ROOT / path.relative_to(root)
    return source.read_text() if source.is_file() else ""


@pytest.mark.slow
def test_commands_of_the_page_run(extended):
    """In one process, with two steps where the page has a complete run."""
    short = [f"--config.{key}={value}" for key, value in SHORT.items() if key != "metrics"]
    program = (
        "import shlex, sys\n"
        "from aigc_jax.cli import main\n"
        f"for line in {COMMANDS!r}:\n"
        "    words = shlex.split(line)[2:]\n"
        f"    more = {short!r} if words[0] == 'train' else []\n"
        "    code = main.main(words + more)\n"
        "    assert code == 0, line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=extended, env=environment(extended, XLA_FLAGS=QUICK), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((extended / "runs").glob("*/rows.jsonl"))) >= 6


@pytest.mark.slow
def test_shared_tests_pass_with_the_additions(extended):
    update = subprocess.run(
        [sys.executable, "tests/freeze_defaults.py"],
        cwd=extended, env=environment(extended),
        capture_output=True, text=True,
    )  # fmt: skip
    assert update.returncode == 0, update.stderr[-2000:]
    program = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*program, DESELECTED, *SHARED],
        cwd=extended, env=environment(extended), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]

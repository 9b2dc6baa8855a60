"""docs/adding.md: its blocks apply to the source, and what they add works.

A `diff` block has parts `--- FILE`, each followed by consecutive lines of that file; a
`python` block that begins with `# PATH` is a new file; the lines of `sh` blocks are
commands.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import QUICK, ROOT
from options import SHORT

PAGE = (ROOT / "docs" / "adding.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
COPIED = ("aigc_jax", "configs", "tests", "experiments", "docs")
# Tests that walk the tables, or name each of their entries.
SHARED = (
    "tests/core/test_keys.py",
    "tests/methods/test_gan_losses.py::test_gan_losses_match_published_formulas",
    "tests/metrics/test_metrics.py",
    "tests/methods/test_optimizers.py::test_two_optimizer_steps_match_numpy",
    "tests/methods/test_methods.py",
    "tests/data/test_tokenizers.py",
    "tests/integration/test_options.py",
)
# The rows of options differ with every entry of a table.
DESELECTED = "--deselect=tests/integration/test_options.py::test_runs_with_every_option"


def apply_blocks(root):
    """Apply every block of the page to the copy of the repository in `root`."""
    for kind, text in BLOCKS:
        if kind == "diff":
            for part in re.split(r"^--- ", text, flags=re.M)[1:]:
                name, _, lines = part.partition("\n")
                apply_part(root / name, lines.splitlines())
        elif kind == "python" and (found := re.match(r"# (\S+\.py)\n", text)):
            assert not (root / found[1]).exists(), found[1]
            (root / found[1]).write_text(text[found.end() :])


def apply_part(path, lines):
    """Replace lines that begin with " " or "-" by those that begin with " " or "+"."""
    assert all(line[:1] in " -+" for line in lines), lines
    old, new = (
        "".join(line[1:] + "\n" for line in lines if line[:1] in kept or not line)
        for kept in (" -", " +")
    )
    source = path.read_text()
    count = ("\n" + source).count("\n" + old)
    assert count == 1, f"docs/adding.md quotes lines that {path} has {count} times:\n{old}"
    path.write_text(("\n" + source).replace("\n" + old, "\n" + new)[1:])


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the repository with every addition of the page."""
    root = tmp_path_factory.mktemp("extended")
    for folder in COPIED:
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.png")
        )
    for file in ("launch.py", "pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / file, root / file)
    apply_blocks(root)
    return root


def environment(root, **more):
    return os.environ | dict(PYTHONPATH=f"{root}:{root / 'tests'}") | more


@pytest.mark.unit
def test_every_block_applies_to_the_source(extended):
    changed = [p for p in extended.rglob("*.py") if p.read_text() != original(p, extended)]
    assert len(changed) > 20
    for path in changed:
        compile(path.read_text(), str(path), "exec")
    configs = [p for p in changed if p.parent.name == "configs"]
    program = "import sys; from aigc_jax.core import config; list(map(config.load, sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *configs],
        cwd=extended, env=environment(extended), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and len(configs) > 1, done.stderr[-2000:]


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
        [sys.executable, "tests/core/test_keys.py"],
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

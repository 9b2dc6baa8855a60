"""Pages of the documentation that change a copy of the repository.

A `diff` block has parts `--- FILE`, each followed by consecutive lines of that file; a
`python` block that begins with `# PATH` is a new file; the lines of `sh` blocks are
commands.
"""

import os
import re
import shutil
from pathlib import Path

from helpers import ROOT

COPIED = ("aigc_jax", "configs", "tests", "experiments", "docs")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def read_blocks(page: Path) -> list[tuple[str, str]]:  # [(language, text)]
    return BLOCK.findall(page.read_text())


def list_commands(page: Path) -> list[str]:
    """The lines of the page's sh blocks, without comments."""
    blocks = [text for kind, text in read_blocks(page) if kind == "sh"]
    return [line for text in blocks for line in text.splitlines() if line.strip()]


def copy_repository(root: Path) -> Path:
    for folder in COPIED:
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.png")
        )
    for file in ("launch.py", "pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / file, root / file)
    return root


def apply_blocks(page: Path, root: Path) -> None:
    """Apply every block of the page to the copy of the repository in `root`."""
    for kind, text in read_blocks(page):
        if kind == "diff":
            for part in re.split(r"^--- ", text, flags=re.M)[1:]:
                name, _, lines = part.partition("\n")
                apply_part(page, root / name, lines.splitlines())
        elif kind == "python" and (found := re.match(r"# (\S+\.py)\n", text)):
            assert not (root / found[1]).exists(), found[1]
            (root / found[1]).write_text(text[found.end() :])


def apply_part(page: Path, path: Path, lines: list[str]) -> None:
    """Replace lines that begin with " " or "-" by those that begin with " " or "+"."""
    assert all(line[:1] in " -+" for line in lines), lines
    old, new = (
        "".join(line[1:] + "\n" for line in lines if line[:1] in kept or not line)
        for kept in (" -", " +")
    )
    source = path.read_text()
    count = ("\n" + source).count("\n" + old)
    assert count == 1, f"{page.name} quotes lines that {path} has {count} times:\n{old}"
    path.write_text(("\n" + source).replace("\n" + old, "\n" + new)[1:])


def environment(root: Path, **more: str) -> dict[str, str]:
    """The environment of a process that imports the copy."""
    return os.environ | dict(PYTHONPATH=f"{root}:{root / 'tests'}") | more

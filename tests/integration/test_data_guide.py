"""docs/guides/data.md: its Python blocks and its commands run one after another in an
empty directory.
"""

import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT, environment
from options import SHORT

PAGE = (ROOT / "docs" / "guides" / "data.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
# Two steps of tiny networks: the page trains complete ones.
TINY = {
    "gan_digits": {"model.g.widths": "8,", "model.d.widths": "8,"},
    "gpt_shakespeare_cpu": {"model.layers": 1, "model.width": 8, "model.heads": 2}
    | {"model.kv_heads": 2},
    "seq2seq_multi30k": {"model.layers": 1, "model.width": 8, "model.heads": 2}
    | {"model.hidden": 8, "data.vocabulary": 300},
}


def shorten(words: list[str]) -> list[str]:
    """The words of a command, with two steps of a tiny network."""
    config = next((w.partition("=")[2] for w in words if w.startswith("--config=")), "")
    if not config:
        return words
    batch = {} if config == "gan_digits" else {"batch_size": 8}
    short = {k: v for k, v in SHORT.items() if k not in ("metrics", "batch_size")}
    more = (short | batch | TINY[config]).items()
    return [*words, *(f"--config.{key}={value}" for key, value in more)]


def run_program(program: str, folder):
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment() | dict(PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(folder / "cache")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def commands_as_program(commands: list[list[str]]) -> str:
    return (
        "from aigc_jax.cli import main\n"
        f"for words in {commands!r}:\n"
        "    assert main.main(words) == 0, words\n"
    )


@pytest.mark.unit
def test_commands_of_the_guide_that_read_data_run(tmp_path):
    """Without the runs, and the blocks that need them."""
    for kind, text in BLOCKS:
        if kind == "python" and "aigc_jax" not in text:
            run_program(text, tmp_path)
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    words = [shlex.split(line)[1:] for line in lines]
    reading = [line for line in words if line[0] == "data"]
    out = run_program(commands_as_program(reading), tmp_path)
    assert len(reading) >= 3 and out.count("contact sheet:") == len(reading)
    assert {p.name for p in tmp_path.glob("*.png")} == {"digits.png", "hf.png", "records.png"}


@pytest.mark.slow
def test_whole_guide_runs(tmp_path):
    for kind, text in BLOCKS:
        if kind == "python":
            run_program(text, tmp_path)
        else:
            words = [shorten(shlex.split(line)[1:]) for line in text.splitlines()]
            run_program(commands_as_program(words), tmp_path)
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/rows.jsonl"))
    assert runs == ["folder", "hf", "npz", "pairs", "records", "text", "text_records"] + [
        "tokens",
        "topics",
    ]
    assert (tmp_path / "samples.png").exists()

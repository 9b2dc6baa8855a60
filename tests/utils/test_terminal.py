"""Untrusted text on a terminal: control and invisible characters are escaped."""

import io
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from helpers import ROOT, environment, start_words

from aigc_jax.cli import main as cli
from aigc_jax.inference import generation
from aigc_jax.training.progress import Progress
from aigc_jax.utils import terminal
from aigc_jax.utils.terminal import StatusLine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain\tand\nlines, über 漢字 👩‍🔬", "plain\tand\nlines, über 漢字 👩‍🔬"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb", r"a\rb".replace(r"\r", r"\x0d")),
        ("\x9b31m", r"\x9b31m"),
        ("\x7f\x00", r"\x7f\x00"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("\u2028\ufeff", r"\u2028\ufeff"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
    ],
)
def test_control_characters_are_escaped_and_text_is_unchanged(text, shown):
    assert terminal.escape_controls(text) == shown


def test_only_tab_and_newline_control_characters_are_printed():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = terminal.escape_controls(every)
    assert {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")} == {"\t", "\n"}
    kept = [c for c in every if unicodedata.category(c)[0] in "LMNPS" or c == " "]
    assert terminal.escape_controls("".join(kept)) == "".join(kept)


def test_print_text_escapes_what_the_stream_cannot_encode(capsys):
    strict = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    terminal.print_text("Fréchet \udcff\x1b", strict)
    assert strict.buffer.getvalue() == b"Fr\\xe9chet \\udcff\\x1b\n"
    terminal.print_warning("one\nsentence\x1b")
    assert capsys.readouterr().err == "one\\nsentence\\x1b\n"


def test_streamed_text_is_escaped():
    out = io.StringIO()
    pieces = iter([("\x1b[2J",), ("漢\n",), ("\u202e",)])
    assert generation.print_stream(out, "a\x07", pieces) == "a\x07\x1b[2J漢\n\u202e"
    assert out.getvalue() == "a\\x07\\x1b[2J漢\n\\u202e\n"


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--workdir=\x1b]0;x\x07/none"],
        ["compare", "\x1b[31m/a", "\x1b[31m/b"],
        ["train", "--workdir=\x1b[2J", "--config=\x1b[31m.py"],
        ["\x1b[2J"],
        ["train", "--workdir=a", "--\x1b[2J"],
        ["sample", "--workdir=/none\n\x1b[2J"],
    ],
)
def test_errors_escape_control_sequences_in_names(words, capsys):
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\\x1b" in err and len(err.splitlines()) == 1


def test_non_utf8_names_are_escaped_on_an_ascii_terminal():
    """A one-line error instead of a UnicodeEncodeError."""
    words = [os.fsencode(word) for word in start_words("evaluate", "--workdir=")]
    words[-1] += b"\xff\xe9"
    done = subprocess.run(
        words,
        capture_output=True,
        env=environment() | dict(PYTHONIOENCODING="ascii:strict"),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith(
        b"error: \\udcff\\udce9 is not a run directory"
    ), done.stderr


def test_modules_print_only_through_terminal():
    """print() is only allowed where no untrusted text is written."""
    import ast

    allowed = {"terminal.py", "progress.py", "folder.py"}
    for path in [ROOT / "launch.py", *(ROOT / "aigc_jax").rglob("*.py")]:
        calls = [
            n
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"
        ]
        assert not calls or path.name in allowed, path


class Screen(io.StringIO):
    """A stream with a fixed isatty()."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


class OutStream(Screen):
    """The output stream of a notebook, recognized by its module."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize(
    "file, written",
    [
        (Screen(True), "\r\x1b[Kstep 10\r\x1b[Kstep 9\r\x1b[Kdone\n"),
        (OutStream(False), "\rstep 10\rstep 9 \rdone  \n"),
        (Screen(False), "step 10\nstep 9\ndone\n"),
    ],
)
def test_status_line_overwrites_itself_where_supported(file, written):
    line = StatusLine(file)
    line.write_line("step 10")
    line.write_line("step 9")
    line.write_line("done", ends_line=True)
    assert file.getvalue() == written


def test_notebook_progress_is_one_line():
    file = OutStream(False)
    progress = Progress(0, 4, file)
    progress.start_clocks()
    for step in (1, 2, 4):
        progress.update(step, dict(loss=np.ones(1)), lambda *_: None)
    progress.end_line()
    said = file.getvalue()
    assert said.count("\n") == 1 and said.endswith("\n") and "\x1b" not in said
    assert said.startswith("\rstep 4/4  100%") and "loss 1" in said

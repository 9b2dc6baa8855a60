"""Untrusted text on a terminal: what it would obey or hide is shown."""

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
def test_controls_are_shown_and_text_is_kept(text, shown):
    assert terminal.printable(text) == shown


def test_no_control_character_but_tabs_and_line_breaks_is_printed():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = terminal.printable(every)
    assert {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")} == {"\t", "\n"}
    kept = [c for c in every if unicodedata.category(c)[0] in "LMNPS" or c == " "]
    assert terminal.printable("".join(kept)) == "".join(kept)


def test_text_is_printed_in_the_characters_that_a_stream_has(capsys):
    strict = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    terminal.print_text("Fréchet \udcff\x1b", strict)
    assert strict.buffer.getvalue() == b"Fr\\xe9chet \\udcff\\x1b\n"
    terminal.print_warning("one\nsentence\x1b")
    assert capsys.readouterr().err == "one\\nsentence\\x1b\n"


def test_generated_text_cannot_command_the_terminal():
    out = io.StringIO()
    pieces = iter([("\x1b[2J",), ("漢\n",), ("\u202e",)])
    assert generation.stream_to(out, "a\x07", pieces) == "a\x07\x1b[2J漢\n\u202e"
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
def test_errors_show_control_sequences_of_names(words, capsys):
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\\x1b" in err and len(err.splitlines()) == 1


def test_names_that_are_no_utf8_on_a_strict_terminal():
    """One sentence instead of a UnicodeEncodeError."""
    words = [os.fsencode(word) for word in start_words("evaluate", "--workdir=")]
    words[-1] += b"\xff\xe9"
    done = subprocess.run(
        words,
        capture_output=True,
        env=environment() | dict(PYTHONIOENCODING="ascii:strict"),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith(b"error: \\udcff\\udce9 is no run"), (
        done.stderr
    )


def test_the_modules_print_through_terminal_alone():
    """print() is left to what writes no text of others."""
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
    """A stream that is a terminal or not."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


class OutStream(Screen):
    """A notebook's."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize(
    "file, written",
    [
        (Screen(True), "\r\x1b[Kstep 10\r\x1b[Kstep 9\r\x1b[Kdone\n"),
        (OutStream(False), "\rstep 10\rstep 9 \rdone  \n"),
        (Screen(False), "step 10\nstep 9\ndone\n"),
    ],
)
def test_a_status_line_is_written_over_itself_where_that_is_possible(file, written):
    line = StatusLine(file)
    line.write("step 10")
    line.write("step 9")
    line.write("done", last=True)
    assert file.getvalue() == written


def test_progress_in_a_notebook_is_one_line():
    file = OutStream(False)
    progress = Progress(0, 4, file)
    for step in (1, 2, 4):
        progress.show(step, dict(loss=np.ones(1)), lambda *_: None)
    progress.end_line()
    said = file.getvalue()
    assert said.count("\n") == 1 and said.endswith("\n") and "\x1b" not in said
    assert said.startswith("\rstep 4/4  100%") and "loss 1" in said

"""Untrusted text on a terminal: control and invisible characters are escaped."""

import io
import itertools
import os
import subprocess
import sys
import unicodedata
from types import SimpleNamespace

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

    allowed = {"terminal.py"}
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


@pytest.fixture(autouse=True)
def capable_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)


IN_PLACE = "\r\x1b[Kstep 10\r\x1b[Kstep 9\r\x1b[Kdone\n"
LINES = "step 10\nstep 9\ndone\n"


@pytest.mark.parametrize(
    "file, variables, written",
    [
        (Screen(True), {}, IN_PLACE),
        (Screen(True), dict(CI="false"), IN_PLACE),
        (Screen(True), dict(CI="1"), LINES),
        (Screen(True), dict(NO_COLOR="1"), LINES),
        (Screen(True), dict(TERM="dumb"), LINES),
        (OutStream(False), {}, "\rstep 10\rstep 9 \rdone  \n"),
        (Screen(False), {}, LINES),
    ],
)
def test_status_line_overwrites_itself_where_supported(file, variables, written, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
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


def test_status_interval_is_kept_from_the_last_line(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: now[0])
    line = StatusLine(Screen(False), log_seconds=5.0)
    assert line.is_due()  # the first line at once
    line.write_line("step 1")
    now[0] += 4.9
    assert not line.is_due()
    now[0] += 0.2
    assert line.is_due()
    line.restart_interval()
    assert not line.is_due()


def test_crash_ends_the_progress_line(capsys):
    from aigc_jax.training.train import _record_crashes

    file = Screen(True)
    progress = Progress(0, 4, file)
    progress.start_clocks()
    progress.update(1, dict(loss=np.ones(1)), lambda *_: None)
    with pytest.raises(ValueError), _record_crashes([], SimpleNamespace(progress=progress, step=1)):
        raise ValueError
    assert file.getvalue().startswith("\r\x1b[Kstep 1/4  25%") and file.getvalue()[-1] == "\n"


def test_progress_over_items_is_one_line_that_ends_with_the_last(monkeypatch):
    """Of a terminal; a task that is shorter than the interval has no line in a log."""
    now = itertools.count()
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: float(next(now)))
    for file, written in ((Screen(True), 3), (Screen(False), 0)):
        monkeypatch.setattr(sys, "stderr", file)
        items = terminal.iterate_with_progress("reading", "abc", 3, "images")
        assert list(items) == ["a", "b", "c"]
        assert file.getvalue().count("images") == written
        assert file.getvalue()[-20:] in ("reading 3 of 3 images\n"[-20:], "")


def test_progress_over_items_ends_its_line_at_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Screen(True))
    monkeypatch.setattr(terminal.time, "perf_counter", map(float, itertools.count()).__next__)
    items = terminal.iterate_with_progress("reading", "abc", 3, "images")
    next(items)
    items.close()
    assert sys.stderr.getvalue().endswith("reading 1 of 3 images\n")

"""Tables and status lines on terminals: rich draws the same words as plain lines have,
only where a terminal can show them, and only the command line imports it.
"""

import ast
import collections
import contextlib
import io
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, environment

from aigc_jax.cli import rich_output
from aigc_jax.cli.rich_output import draw_by_rich, fit_widths
from aigc_jax.training.progress import Progress
from aigc_jax.utils import terminal
from aigc_jax.utils.terminal import Bar, StatusLine, print_blocks, print_markdown, print_table
from aigc_jax.utils.text_table import Table

pytestmark = pytest.mark.unit

TABLE = Table(
    ("last row", "a run with a long name", "r2"),
    [
        ("valid loss", 0.6931, None),
        ("step", 20_000, 1),
        ("[red]x[/] \x1b[31m :smile: 漢字 http://x.y/z", "a b c d e f", 2.5),
    ],
)
MARKDOWN = "| beta | loss |\n|---|---|\n| 0.5 | 1.2 (0.3) |\n\n4 trials: *all* `done`.\n"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LINES = set("─━╸╺-|")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 100 columns, for `written_to`."""
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


@contextlib.contextmanager
def written_to(screen):
    """Write stdout and stderr to a stream."""
    with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        yield


def words_of(text):
    """The words without colours, lines and bars, in the order of writing."""
    words = ESCAPES.sub(" ", COLOURS.sub("", text)).split()
    return [word for word in words if set(word) - LINES]


def print_all():
    print_table(TABLE)
    print_blocks(["a text", TABLE, "and 2 more"])
    print_markdown(MARKDOWN)
    print_markdown("figure: x.png")


@pytest.mark.parametrize("columns", [200, 60, 12])
def test_drawn_tables_have_the_words_of_plain_ones(screen, monkeypatch, columns):
    """Cells break between words, at any width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with written_to(screen):
        print_all()
    plain = screen.getvalue()
    screen.seek(0)
    screen.truncate()
    with written_to(screen), draw_by_rich():
        print_all()
    drawn = screen.getvalue()
    assert "─" in drawn and "|---" not in drawn and "\\x1b[31m" in drawn and ":smile:" in drawn
    assert collections.Counter(words_of(drawn)) == collections.Counter(words_of(plain))


def test_drawn_lines_fit_the_terminal(screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with written_to(screen), draw_by_rich():
        print_table(TABLE)
    lines = ESCAPES.sub("", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= 60 and len(lines) > 1 + 1 + len(TABLE.rows)


@pytest.mark.parametrize(
    "widest, narrowest, room, widths",
    [
        ([10, 5, 5], [4, 5, 5], 30, [10, 5, 5]),
        ([10, 5, 5], [4, 5, 5], 17, [7, 5, 5]),
        ([10, 9, 5], [4, 5, 5], 16, [6, 5, 5]),
        ([10, 5, 5], [4, 5, 5], 13, [10, 5, 5]),  # the words do not fit
        ([], [], 10, []),
    ],
)
def test_first_columns_take_the_spare_width(widest, narrowest, room, widths):
    assert fit_widths(widest, narrowest, room) == widths


@pytest.mark.parametrize("columns", [100, 30])
def test_status_is_replaced_and_its_end_shows_the_cursor(screen, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with written_to(screen), draw_by_rich():
        line = StatusLine()
        for step in (1, 2):
            line.write_line(f"step {step}/2  {step / 2:.0%}  loss 0.5", step / 2)
        assert screen.getvalue().count("\x1b[?25l") == 1  # the cursor is hidden
        line.end_line()
        line.end_line()
    written = screen.getvalue()
    first, last = "step 1/2 50% loss 0.5", "step 2/2 100% loss 0.5"  # which is drawn twice
    assert " ".join(words_of(written)) == f"{first} {last} {last}"
    assert written.count("\x1b[?25h") == 1 and "━" in written


HOSTILE = "[red]x[/] [link=file:///]y[/link] \x1b[2J\x1b]0;t\x07 \x9b31m \u202e\n:smile: loss"
PLAIN_HOSTILE = (
    r"[red]x[/] [link=file:///]y[/link] \x1b[2J\x1b]0;t\x07 \x9b31m \u202e\n:smile: loss"
)


@pytest.mark.parametrize("columns", [200, 40])
def test_names_in_a_status_change_neither_colours_nor_cursor(screen, monkeypatch, columns):
    """Of metrics, trials and groups: text, not markup or control sequences."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with written_to(screen), draw_by_rich():
        line = StatusLine()
        details = [Bar(HOSTILE, 0.5), Table((HOSTILE, "r"), [(HOSTILE, 1)]), Bar(HOSTILE)]
        line.write_line(HOSTILE, 0.5, details=details)
        line.end_line()
    shown = re.sub(r"\s+", "", ESCAPES.sub("", screen.getvalue()))
    expected = re.sub(r"\s+", "", PLAIN_HOSTILE)
    # Five texts, which are drawn twice; in a narrow table they are broken.
    assert shown.count(expected) == 10 if columns == 200 else shown.count(expected) >= 4
    for code in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "file:///\x1b"):
        assert code not in screen.getvalue()


def test_names_in_a_progress_line_are_escaped(screen):
    for is_drawn in (False, True):
        screen.seek(0)
        screen.truncate()
        with written_to(screen), draw_by_rich() if is_drawn else contextlib.nullcontext():
            progress = Progress(0, 2)
            progress.start_clocks()
            progress.update(1, {HOSTILE: np.ones(1)}, lambda *_: None)
        shown = " ".join(ESCAPES.sub("", screen.getvalue()).split())
        assert f"left {PLAIN_HOSTILE} 1" in shown, shown
        assert "\x1b[2J" not in screen.getvalue() and "\x07" not in screen.getvalue()


def test_bars_of_one_status_have_one_length(screen):
    with written_to(screen), draw_by_rich():
        StatusLine().write_line("all", 0.5, details=[Bar("a group  12 trials", 0.25), Bar("more")])
    lines = ESCAPES.sub("\n", COLOURS.sub("", screen.getvalue())).splitlines()
    rows = [line for line in lines if line.strip()][:3]
    assert [line.split()[-1] for line in rows] == ["all", "trials", "more"]
    assert len({len(re.match("[━╸╺ ]*", line)[0]) for line in rows}) == 1


def test_text_printed_meanwhile_appears_above_the_status(screen):
    with written_to(screen), draw_by_rich():
        line = StatusLine()
        line.write_line("step 1")
        terminal.print_text("a message \x1b[2J")
        terminal.print_warning("a warning")
        line.write_line("step 2", ends_line=True)
        terminal.print_text("afterwards")
    assert " ".join(words_of(screen.getvalue())) == (
        r"step 1 a message \x1b[2J step 1 a warning step 1 step 2 step 2 afterwards"
    )


def test_error_during_a_status_shows_the_cursor(screen):
    with pytest.raises(KeyboardInterrupt), written_to(screen), draw_by_rich():
        StatusLine().write_line("step 1", 0.5)
        raise KeyboardInterrupt
    assert screen.getvalue().endswith("\x1b[?25h")
    StatusLine(screen).write_line("step 2", ends_line=True)
    assert screen.getvalue().endswith("\r\x1b[Kstep 2\n")  # plain again


def test_status_of_other_streams_is_plain(screen):
    log = io.StringIO()
    with written_to(screen), draw_by_rich():
        line = StatusLine(log)
        line.write_line("step 1", 0.5)
        line.write_line("step 2", 1.0, ends_line=True)
        print_table(TABLE, log)
    assert log.getvalue() == terminal.escape_controls(f"step 1\nstep 2\n{TABLE}\n")
    assert screen.getvalue() == ""


# -- a pseudo-terminal

SCRIPT = """
import sys
if len(sys.argv) > 1:
    sys.modules["rich"] = None
from aigc_jax.cli.rich_output import draw_by_rich
from aigc_jax.utils.terminal import Bar, StatusLine, print_table, print_text
from aigc_jax.utils.text_table import Table
with draw_by_rich():
    line = StatusLine(log_seconds=0.0)
    line.write_line("step 1/2  50%", 0.5)
    line.write_line("step 2/2  100%", 1.0, ends_line=True)
    print_table(Table(("", "train"), [("loss", 0.5), ("step", 12_345)]))
"""
PLAIN = [
    "step 1/2  50%",
    "step 2/2  100%",
    "       train",
    "----  ------",
    "loss     0.5",
    "step  12,345",
]


def on_terminal(words, **variables):
    """What a process writes to a pseudo-terminal, which is both of its outputs."""
    ours, theirs = pty.openpty()
    env = environment() | dict(TERM="xterm-256color", COLUMNS="80", CI="", NO_COLOR="") | variables
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=ROOT)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the process has closed its end
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0, written
    return written.decode().replace("\r\n", "\n")


def test_pseudo_terminal_shows_bars_and_tables():
    written = on_terminal([sys.executable, "-c", SCRIPT])
    assert "━" in written and "\x1b[?25h" in written
    table = ESCAPES.sub("", written).splitlines()[-4:]
    assert [line.rstrip() for line in table] == [
        "        train",
        "─────────────",
        "loss      0.5",
        "step   12,345",
    ]


@pytest.mark.parametrize("variables", [dict(NO_COLOR="1"), dict(CI="true"), dict(TERM="dumb")])
def test_plain_terminals_get_plain_lines(variables):
    assert on_terminal([sys.executable, "-c", SCRIPT], **variables).splitlines() == PLAIN


def test_pipes_get_plain_lines():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.splitlines() == PLAIN


def test_terminal_without_rich_has_a_line_in_place():
    written = on_terminal([sys.executable, "-c", SCRIPT, "without"])
    start = "\r\x1b[Kstep 1/2  50%\r\x1b[Kstep 2/2  100%\n"
    assert written == start + "\n".join(PLAIN[2:]) + "\n"


# -- imports


def test_only_the_command_line_imports_rich():
    paths = [*(ROOT / "aigc_jax").rglob("*.py"), ROOT / "launch.py"]
    for path, text in ((path, path.read_text()) for path in paths):
        for node in ast.walk(ast.parse(text)) if "rich" in text else ():
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            is_rich = any(name.split(".")[0] == "rich" for name in names)
            assert not is_rich or str(path) == rich_output.__file__, path


def test_help_and_lists_do_not_import_rich():
    code = (
        "import contextlib, sys\nfrom aigc_jax.cli.main import main\n"
        "for words in (['--help'], ['train', '--help'], ['list']):\n"
        "    with contextlib.suppress(SystemExit):\n        main(words)\n"
        "sys.exit('rich' in sys.modules)"
    )
    on_terminal([sys.executable, "-c", code])

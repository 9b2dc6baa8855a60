"""Extracts code spans, paths, links and commands from *.md files and docstrings."""

import ast
import functools
import re
import shlex
from pathlib import Path

from helpers import ROOT

FOLDERS = ("aigc_jax", "experiments", "benchmarks", "configs", "docs")
ADDING = ROOT / "docs" / "adding.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
COMING = ROOT / "docs" / "guides" / "coming-from.md"
URL = re.compile(r"\w+://\S+")
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")  # may continue in the next line
FENCE = re.compile(r"^```.*?^```", re.S | re.M)
FIRST_CELL = re.compile(r"^\|[^|]*\|", re.M)
BLOCK = re.compile(r"(?:^(?:    .*)?\n)+", re.M)  # lines that are indented by four
PATH = re.compile(r"(?<![\w/.<$~-])((?:\.\./)*(?:[\w*<>{},.-]+/)+(?:[\w*<>{},.-]*[\w*>}])?)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAM = r"(?:python3? (?:launch\.py|-m aigc_jax)|(?<![\w./-])launch\.py|(?<![\w./-])aigc)"
COMMAND = re.compile(rf"{PROGRAM}(?= +[a-z-])(.*)", re.S)
SCRIPT = re.compile(r"python3? ((?:experiments|benchmarks|docs)/\S+\.py)(.*)", re.S)
# A placeholder of a word: NAME, $NAME, GPT2_DIR, ..., <hash>
PLACEHOLDER = re.compile(r"\$\w+|[A-Z][A-Z0-9_]*(?:,\.\.\.)?|\.\.\.|<.*>")


def documents() -> dict[Path, list[str]]:
    """{file: its texts} of the *.md files and of the docstrings of *.py files."""
    out = {path: [path.read_text()] for path in markdown_files()}
    # Its blocks name files that do not exist yet; test_adding applies and runs them.
    out[ADDING] = [FENCE.sub("", ADDING.read_text())]
    del out[TUTORIAL]  # the text names what its blocks add; test_tutorial runs its commands
    # The first column of its tables has the names and commands of other projects.
    out[COMING] = [FIRST_CELL.sub("|", COMING.read_text())]
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            out[path] = docstrings(path)
    return out


def markdown_files() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def docstrings(path: Path) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


@functools.cache
def variables(path: Path) -> set[str]:
    """The names of arguments and variables in a file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return arguments | {node.id for node in nodes if isinstance(node, ast.Name)}


def is_placeholder(word: str) -> bool:
    return PLACEHOLDER.fullmatch(word) is not None


def blocks(text: str, markdown: bool) -> str:
    """Fenced and indented lines of Markdown; all lines of a docstring."""
    if not markdown:
        return text
    fenced = [part.partition("\n")[2].rpartition("```")[0] for part in FENCE.findall(text)]
    return "\n".join([*fenced, *BLOCK.findall(FENCE.sub("", text))])


def spans(text: str) -> list[str]:
    """Code in backticks outside of fenced blocks."""
    return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text))]


def paths(text: str) -> list[str]:
    """Paths with a slash; patterns of paths are left out."""
    pattern = re.compile(r"[*<>{}]|(?:^|[/_])(?:NAME|FILE|DIR|WORKDIR)\b")
    return [p for p in PATH.findall(URL.sub("", text)) if not pattern.search(p)]


def names(text: str) -> list[str]:
    """Dotted names in backticks, without their arguments."""
    dotted = r"(?:--)?([A-Za-z_]\w*(?:\.[A-Za-z_0-9]\w*)+)(?:\(.*\)|=.*)?"
    return [m[1] for span in spans(text) if (m := re.fullmatch(dotted, span))]


def logical_lines(text: str) -> list[str]:
    """Lines; one that begins with a flag, or follows a backslash, is appended."""
    out = []
    for line in text.splitlines():
        if out and (out[-1].endswith("\\") or line.strip().startswith("--") and out[-1].strip()):
            out[-1] = out[-1].removesuffix("\\").rstrip() + " " + line.strip()
        else:
            out.append(line.rstrip())
    return out


def shell_words(text: str) -> list[str]:
    """The words of a command, up to a comment, a pipe or a closing quote."""
    for candidate in (text, text.rpartition('"')[0], text.rpartition("'")[0]):
        lexer = shlex.shlex(candidate, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # the quote was opened before the command
            continue
        ends = [i for i, word in enumerate(words) if word[0] in ";&|<>"]
        return words[: ends[0]] if ends else words
    raise ValueError(f"no closing quotation: {text}")


def commands(text: str, markdown: bool) -> list[tuple[str, bool]]:
    """(arguments after the program's name, whether it is a complete line) of each
    command line of the project; code spans may also begin with a subcommand.
    """
    from aigc_jax.cli.main import VERBS

    lines = [m[1] for line in logical_lines(blocks(text, markdown)) if (m := COMMAND.search(line))]
    inline = spans(text)
    known = [m[1] for span in inline if (m := COMMAND.match(span))]
    known += [span for span in inline if span.split()[0] in VERBS and " --" in span]
    lines = [line for line in lines if "`" not in line]  # prose of a docstring
    return [(line, True) for line in lines] + [(span, False) for span in known]


def scripts(text: str, markdown: bool) -> list[tuple[str, str]]:
    """(file, arguments) of each command that runs a script."""
    lines = logical_lines(blocks(text, markdown)) + spans(text)
    found = [m for line in lines for m in SCRIPT.finditer(line)]
    return [(m[1], m[2].partition("`")[0]) for m in found]


def script_flags(path: Path) -> set[str]:
    """Patterns of the flags of a script's parser, including those of the modules that
    it imports from its folder.
    """
    tree, out = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            for word in node.args:
                parts = word.values if isinstance(word, ast.JoinedStr) else [word]
                literal = [p.value if isinstance(p, ast.Constant) else r"\w+" for p in parts]
                out.add("".join(map(str, literal)))
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            beside = path.parent.joinpath(*name.split(".")).with_suffix(".py")
            out |= script_flags(beside) if beside.is_file() else set()
    return out

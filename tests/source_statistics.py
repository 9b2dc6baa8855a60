"""Statistics of the package's source: names, annotations, lengths, vocabulary.

python tests/source_statistics.py [CHECKOUT]
"""

import ast
import collections
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# Statements with an indented block.
BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Match)
# Functions with one statement per flag or key, whose length is not limited.
TABLES = ("add_arguments",)
# Words in place of which the field has a term or the thing has a name: image, feature,
# shard, cached, existing, integer, network.
PRIVATE = {
    "picture", "pictures", "look", "looks", "looked", "looking", "see", "sees", "sight",
    "sights", "seen", "told", "asked", "asks", "given", "heard", "said", "laid", "lay", "lays",
    "lie", "lies", "whole", "kept", "there", "apart", "joined", "player", "players", "game",
    "games",
}  # fmt: skip
PRIVATE_PHRASES = (
    "by itself", "in turn", "so many", "of which", "a sentence", "goes on", "go on",
    "what a clock decides",
)  # fmt: skip


class Function(NamedTuple):
    """A function at the top of a module or of a class."""

    path: Path
    name: str
    node: ast.FunctionDef
    is_method: bool  # the first parameter is self or cls

    @property
    def parameters(self) -> list[ast.arg]:
        args = self.node.args
        return [*args.posonlyargs, *args.args, *args.kwonlyargs][self.is_method :]

    @property
    def positional(self) -> int:
        """The number of parameters that a caller may pass by position."""
        return len(self.parameters) - len(self.node.args.kwonlyargs)

    @property
    def is_annotated(self) -> bool:
        """Whether the return value and each parameter has an annotation."""
        returned = self.node.returns is not None or self.name == "__init__"
        return returned and all(arg.annotation for arg in self.parameters)

    @property
    def length(self) -> int:
        """The number of lines without the docstring."""
        return lines_of(self.node)

    @property
    def nesting(self) -> int:
        return depth_of(self.node)


def lines_of(node: ast.FunctionDef) -> int:
    """The number of lines of a function without its decorators and docstring."""
    body = node.body
    has_docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    docstring = body[0].end_lineno - body[0].lineno + 1 if has_docstring else 0
    return node.end_lineno - node.lineno + 1 - docstring


def depth_of(node: ast.AST) -> int:
    """The nesting depth of blocks; `elif` is at the level of its `if`."""
    deepest = 0
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            is_elif = (
                isinstance(node, ast.If)
                and name == "orelse"
                and isinstance(child, ast.If)
                and len(value) == 1
            )
            inner = depth_of(child) + (isinstance(child, BLOCKS) and not is_elif)
            deepest = max(deepest, inner)
    return deepest


def functions(package: Path) -> Iterator[Function]:
    """Yield the functions of all modules, and the methods of their classes."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                yield Function(path, node.name, node, False)
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        static = "staticmethod" in map(ast.unparse, member.decorator_list)
                        yield Function(path, member.name, member, not static)


def called_names(package: Path) -> dict[str, int]:
    """{name: number of functions that call it}."""
    counts: dict[str, int] = {}
    for function in functions(package):
        called = {
            node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            for node in ast.walk(function.node)
            if isinstance(node, ast.Call)
        }
        for name in called:
            counts[name] = counts.get(name, 0) + 1
    return counts


def public(package: Path) -> list[Function]:
    """Functions without a leading underscore, or that several functions call."""
    counts = called_names(package)
    return [
        f
        for f in functions(package)
        if not f.name.startswith("_") or not f.name.startswith("__") and counts.get(f.name, 0) > 1
    ]


def one_word_share(package: Path) -> float:
    """The fraction of public functions whose name is a single word."""
    names = [f.name.strip("_") for f in public(package)]
    return sum("_" not in name for name in names) / len(names)


def annotated_share(package: Path, rooms: tuple[str, ...] = ()) -> float:
    """The fraction of annotated functions, in some subpackages or in all."""
    found = [
        f for f in functions(package) if not rooms or f.path.relative_to(package).parts[0] in rooms
    ]
    return sum(f.is_annotated for f in found) / len(found)


def long_lines(package: Path, most: int = 100) -> int:
    """The number of lines with more than `most` columns."""
    return sum(
        len(line) > most for path in package.rglob("*.py") for line in path.read_text().splitlines()
    )


def private_words(package: Path) -> collections.Counter:
    """The occurrences of PRIVATE and PRIVATE_PHRASES in names, comments and strings."""
    counts: collections.Counter = collections.Counter()
    for path in package.rglob("*.py"):
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type not in (tokenize.NAME, tokenize.COMMENT, tokenize.STRING):
                continue
            spelt = token.string.replace("whole note", "note")  # 1/1, a term of music
            text = re.sub(r"([a-z])([A-Z])", r"\1 \2", spelt.replace("_", " ")).lower()
            counts.update(word for word in re.findall(r"[a-z]+", text) if word in PRIVATE)
            prose = " ".join(text.split())
            counts.update(p for p in PRIVATE_PHRASES for _ in re.findall(rf"\b{p}\b", prose))
    return counts


def main() -> None:
    package = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT) / "aigc_jax"
    every = [f for f in functions(package) if f.name not in TABLES]
    where = lambda f: f"{f.path.relative_to(package)}:{f.name}"
    longest = max(every, key=lambda f: f.length)
    deepest = max(every, key=lambda f: f.nesting)
    widest = max(every, key=lambda f: f.positional)
    modules = [(len(p.read_text().splitlines()), p.name) for p in package.rglob("*.py")]
    print(f"public functions of one word   {one_word_share(package):.1%}")
    print(f"annotated functions            {annotated_share(package):.1%}")
    for room in ("core", "data", "training", "inference", "sweeps"):
        if (package / room).is_dir():
            print(f"  {room:29}{annotated_share(package, (room,)):.1%}")
    print(f"longest function, lines        {longest.length} ({where(longest)})")
    print(f"  over 40                      {sum(f.length > 40 for f in every)}")
    print(f"deepest nesting                {deepest.nesting} ({where(deepest)})")
    print(f"  over 3                       {sum(f.nesting > 3 for f in every)}")
    print(f"most positional parameters     {widest.positional} ({where(widest)})")
    print(f"  over 7                       {sum(f.positional > 7 for f in every)}")
    print("longest module, lines          {} ({})".format(*max(modules)))
    print(f"lines over 100 columns         {long_lines(package)}")
    words = private_words(package)
    print(f"words of the private list      {words.total()} {dict(words.most_common(8))}")


if __name__ == "__main__":
    main()

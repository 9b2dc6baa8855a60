#!/usr/bin/env python3
"""Draw the rooms of the package and their imports: docs/pictures/rooms.svg.

    python docs/draw_rooms.py

Boxes stand in the order of the levels in tests/integration/test_architecture.py. A dot
means that some module of one room imports some module of another. The drawing is a
function of the source, byte for byte.
"""

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "aigc_jax"
OUT = ROOT / "docs/pictures/rooms.svg"

# Pixels: a box, from box to box, a dot; left, above, and to the right of all.
WIDTH, HEIGHT, RIGHT, DOWN, DOT = 112, 30, 76, 46, 9
LEFT, TOP, SIDE = 20, 64, 290

# What a room holds, in the drawing; docs/design/architecture.md says more.
HOLDS = {
    "cli": "the command line, a verb a file",
    "sweeps": "many trials: grids, groups, engines, figures",
    "inference": "a trained run as an object",
    "training": "one program of N trials, to a run directory",
    "methods": "what a GAN, VAE, language model is",
    "metrics": "arrays to numbers, on the host",
    "media": "arrays to images, text, music",
    "models": "networks",
    "data": "data sets, tokenizers, batches",
    "core": "method, transforms, mesh, config keys",
    "utils": "files, errors, locks, tables of text",
}

NOTES = (
    "A room imports only rooms below it. Follow the line to the right of a room and down into",
    "another: a dot marks an import. Shaded: one level, without imports.",
)

STYLE = """
    text { font-family: sans-serif; font-size: 13px; fill: #1f2328; }
    .note { font-size: 12px; fill: #59636e; }
    .name { font-weight: bold; text-anchor: middle; }
    .page { fill: #ffffff; }
    .level { fill: #f3f5f7; }
    .box { fill: #ddf4ff; stroke: #0969da; }
    .dot { fill: #0969da; }
    .line { fill: none; stroke: #8c959f; stroke-width: 1.2; }
    .head { fill: #8c959f; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .note { fill: #9198a1; }
      .page { fill: #0d1117; }
      .level { fill: #151b23; }
      .box { fill: #12233a; stroke: #4493f8; }
      .dot { fill: #4493f8; }
      .line { stroke: #656c76; }
      .head { fill: #656c76; }
    }
"""


def levels() -> tuple[tuple[str, ...], ...]:
    """The rooms by level, lowest first, as the test of the architecture has them."""
    tree = ast.parse((ROOT / "tests/integration/test_architecture.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "LEVELS":
            return ast.literal_eval(node.value)
    raise LookupError("test_architecture.py has no LEVELS")


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at any depth: `core.schema`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aigc_jax":
            base = node.module.removeprefix("aigc_jax").strip(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".strip(".")
                file = PACKAGE.joinpath(*name.split("."))
                is_module = file.is_dir() or file.with_suffix(".py").exists()
                found.add(name if is_module else base)
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("aigc_jax")}
    return found - {""}


def room_imports() -> set[tuple[str, str]]:
    """{(room, other room that one of its modules imports)}"""
    found = set()
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).parts[0]
        found |= {(room, name.split(".")[0]) for name in imported(file)}
    return {(room, other) for room, other in found if room != other}


class Room(NamedTuple):
    """A box of the drawing: its name, its corner, and the middles of its sides."""

    name: str
    x: int
    y: int

    @property
    def center(self) -> int:
        """Where the line into the room from above stands."""
        return self.x + WIDTH // 2

    @property
    def row(self) -> int:
        """Where the line to the right of the room stands."""
        return self.y + HEIGHT // 2


def draw(levels, imports) -> str:
    """The SVG: rooms down a diagonal, the highest first. The line to the right of a
    room carries its imports, the line into a room from above those of others; a dot is
    where the two of an import meet.
    """
    names = [name for level in reversed(levels) for name in reversed(level)]
    rooms = [Room(name, LEFT + i * RIGHT, TOP + i * DOWN) for i, name in enumerate(names)]
    pairs = [(a, b) for a in rooms for b in rooms if (a.name, b.name) in imports]
    by_name = {room.name: room for room in rooms}
    width, height = rooms[-1].x + WIDTH + SIDE, rooms[-1].y + HEIGHT + 20
    parts = [
        "<title>The rooms of aigc_jax and the imports between them</title>",
        f"<style>{STYLE}  </style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        *(band(by_name[level[-1]], by_name[level[0]]) for level in levels if len(level) > 1),
        *(line for room in rooms for line in lines(room, pairs)),
        *(rect("dot", b.center - DOT // 2, a.row - DOT // 2, DOT, DOT, DOT) for a, b in pairs),
        *(text("note", LEFT, 24 + 17 * i, note) for i, note in enumerate(NOTES)),
    ]
    for room in rooms:
        parts.append(rect("box", room.x, room.y, WIDTH, HEIGHT, 5))
        parts.append(text("name", room.center, room.y + 20, room.name))
        parts.append(text("note", width - SIDE + 12, room.y + 19, HOLDS.get(room.name, "")))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n  ".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n  {body}\n</svg>\n'


def band(first: Room, last: Room) -> str:
    """The shade behind the rooms of one level."""
    wide, high = last.x - first.x + WIDTH + 16, last.y - first.y + HEIGHT + 16
    return rect("level", first.x - 8, first.y - 8, wide, high, 8)


def lines(room: Room, pairs) -> list[str]:
    """The line of a room's imports, and the arrow of those who import it."""
    out = []
    if imports := [b.center for a, b in pairs if a == room]:
        out.append(path("line", f"M{room.x + WIDTH} {room.row} H{max(imports)}"))
    if users := [a.row for a, b in pairs if b == room]:
        out.append(path("line", f"M{room.center} {min(users)} V{room.y - 7}"))
        out.append(path("head", f"M{room.center} {room.y} l-5 -8 h10 z"))
    return out


def rect(kind, x, y, width, height, radius) -> str:
    """A rounded rectangle, styled by its kind."""
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'


def path(kind, steps) -> str:
    """A line, styled by its kind."""
    return f'<path class="{kind}" d="{steps}"/>'


def text(kind, x, y, words) -> str:
    """A text, styled by its kind."""
    return f'<text class="{kind}" x="{x}" y="{y}">{words}</text>'


if __name__ == "__main__":
    OUT.write_text(draw(levels(), room_imports()), encoding="utf-8")
    print(OUT.relative_to(ROOT))

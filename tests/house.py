"""The rooms of the house, measured from the code's own imports: `python tests/house.py` prints them.

A room is a folder of `pipeline/`, `datasets`, `conf`, or one of the two programs.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Which rooms a room may import. Rooms stand in order: none may import one below it in this table.
ROOMS = {
    "core": "",
    "media": "core",
    "decoders": "core media",
    "layers": "core media",
    "compiled": "core",
    "cells": "core media layers compiled",
    "extractors": "core media layers",
    "sources": "core media layers",
    "datasets": "core media layers",
    "encoders": "core media layers cells extractors",
    "augmentations": "core media layers cells extractors",
    "tasks": "core media layers decoders",
    "model": "core media layers cells extractors encoders augmentations tasks decoders",
    "streaming": "core media layers sources model decoders",
    "exporting": "core media layers cells model streaming decoders",
    "measures": "core media layers cells extractors tasks model streaming decoders",
    "report": "core media tasks model streaming measures decoders",
    "sinks": "core media sources tasks model streaming measures report decoders",
    "training": "core media layers augmentations tasks model streaming measures report decoders",
    "batch": "core media sources model streaming measures report sinks decoders",
    "serving": "core media model sources streaming sinks batch decoders",
    "conf": "core training",
    "train": "conf core exporting media augmentations tasks model measures report training",
    "infer": "conf core media sources model streaming sinks batch serving decoders",
}


class Arrow(NamedTuple):
    """A file of one room imports a module of another."""

    room: str
    other: str
    path: Path
    module: str


def files() -> list[Path]:
    """The product's code."""
    found = (path for room in ("pipeline", "datasets", "conf") for path in (ROOT / room).rglob("*.py"))
    return [*sorted(found), ROOT / "train.py", ROOT / "infer.py"]


def module(path: Path) -> str:
    """A file's name as it is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    """The room in which a module is."""
    top, *rest = name.split(".")
    return rest[0] if top == "pipeline" and rest else top


@functools.cache
def tree(path: Path) -> ast.Module:
    """A file, read once."""
    return ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported anywhere in a file, also within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def arrows() -> list[Arrow]:
    """The imports between rooms."""
    return [
        Arrow(room_of(module(path)), room_of(name), path, name)
        for path in files()
        for name in imports(tree(path))
        if name.split(".")[0] in {"pipeline", "datasets", "conf", "train", "infer"}
        and room_of(name) != room_of(module(path))
    ]


def code_lines(path: Path) -> int:
    """Lines without blanks, comments and docstrings."""
    text = path.read_text()
    documented: set[int] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(bool(line.strip()) and not line.strip().startswith("#") and n not in documented for n, line in lines)


def floors(pairs: set[tuple[str, str]]) -> dict[str, int]:
    """The floor of each room: one above the highest room that it imports."""
    found: dict[str, int] = {}
    for room in ROOMS:  # in order, so what a room imports has its floor already
        found[room] = 1 + max((found.get(other, 0) for one, other in pairs if one == room), default=0)
    return found


def main() -> None:
    """Print the rooms, and what holds between them."""
    every = arrows()
    pairs = {(arrow.room, arrow.other) for arrow in every}
    order = list(ROOMS)
    up = [pair for pair in pairs if order.index(pair[1]) > order.index(pair[0])]
    lines = dict.fromkeys(ROOMS, 0)
    count = dict(lines)
    for path in files():
        if (room := room_of(module(path))) in ROOMS:
            lines[room] += code_lines(path)
            count[room] += 1
    level = floors(pairs)
    print(f"{'room':<14}{'floor':>6}{'files':>7}{'code lines':>12}  imports")
    for room in ROOMS:
        others = [other for other in ROOMS if (room, other) in pairs]
        print(f"{room:<14}{level[room]:>6}{count[room]:>7}{lines[room]:>12,}  {' '.join(others)}")
    tests = sum(code_lines(path) for path in (ROOT / "tests").rglob("*.py"))
    mutual = sum((other, room) in pairs for room, other in pairs) // 2
    print(f"\n{len(ROOMS)} rooms on {max(level.values())} floors, {len(pairs)} arrows between them, ", end="")
    print(f"{len(up)} run back up, {mutual} pairs import each other")
    print(f"{sum(count.values())} files, {sum(lines.values()):,} code lines; tests: {tests:,} code lines")


if __name__ == "__main__":
    main()

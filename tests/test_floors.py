"""Imports only go down the floors, never sideways between packages of one floor."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minigpt4o"
FLOORS = {
    "common": 0,
    "conversation": 1,
    "processors": 1,
    "metrics": 1,
    "datasets": 2,
    "models": 2,
    "tasks": 3,
    "runners": 4,
    "serve": 5,
    "cli": 6,
}
# The one sideways step: a processor opens a `Media`, the record that conversations are made of.
SIDEWAYS = {("processors", "minigpt4o.conversation.sample.Media")}


def imported(source: str) -> list[tuple[int, str]]:
    """(line, module) of every import of ours, wherever in the file it stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the full name in place of a relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] == "minigpt4o"]


def allowed(room: str, target: str, name: str) -> bool:
    """Whether a file of `room` may import `name`, which lies in the package `target`."""
    if target == room or (room, name) in SIDEWAYS:
        return True
    return target in FLOORS and FLOORS[target] < FLOORS[room]


def broken(room: str, source: str) -> list[str]:
    """The imports of a file of `room` that go up or sideways."""
    wrong = []
    for line, name in imported(source):
        target = name.split(".")[1] if "." in name else ""
        if target == "__version__" or (room == "cli" and target == ""):
            continue
        if not allowed(room, target, name):
            wrong.append(f"line {line}: {room} (floor {FLOORS[room]}) imports {name}")
    return wrong


def test_every_package_has_a_floor() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py")) and p.name != "__pycache__"}
    assert rooms - {"configs"} == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_imports_go_down_only(room: str) -> None:
    wrong = []
    for file in sorted((PACKAGE / room).rglob("*.py")):
        wrong += [f"{file.relative_to(PACKAGE)}: {text}" for text in broken(room, file.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("models", "from minigpt4o.datasets.collate import collate"),
        ("common", "import minigpt4o.conversation.sample"),
        ("tasks", "def f():\n    from minigpt4o.runners import base"),
        ("metrics", "from minigpt4o.conversation import sample"),
        ("processors", "from minigpt4o.conversation import encode"),
    ],
)
def test_the_check_sees_a_wrong_import(room: str, statement: str) -> None:
    assert broken(room, statement)

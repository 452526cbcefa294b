"""Read a YAML file into nodes that remember where each key was written, and how each value was spelled."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from minigpt4o.common.problems import Place, Problems

MAX_NODES = 20_000  # a configuration is small; more nodes than this is an alias bomb
MAX_DEPTH = 40

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)$")
_HEX = re.compile(r"0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
_OCTAL = re.compile(r"[-+]?0[0-9_]+$")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?$")
_BOOLISH = {"yes", "no", "on", "off"}
_PLAIN_TAGS = {f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp")}
_MERGE = "tag:yaml.org,2002:merge"
_IMPLICIT = yaml.resolver.Resolver()


@dataclass
class Node:
    """A value of a configuration. Mappings hold `dict[str, Node]`, lists hold `list[Node]`."""

    value: Any
    place: Place
    text: str = ""  # a scalar as it was written
    quoted: bool = False
    trap: str = ""  # a spelling that YAML readers disagree about: "bool", "octal" or "sexagesimal"

    @property
    def is_map(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)

    @property
    def interpolated(self) -> bool:
        return isinstance(self.value, str) and "${" in self.value


def shown(path: str | Path) -> str:
    """The path as a person would write it from here."""
    path = Path(path)
    relative = os.path.relpath(path)
    return relative if path.is_absolute() and not relative.startswith("..") else str(path)


def scalar(text: str, place: Place, quoted: bool = False) -> Node:
    """One written word with its value; `1e-4` is a number, and `no`, `010`, `12:30` are marked as traps."""
    value: Any = text
    trap = ""
    if not quoted:
        lower = text.lower()
        if lower in ("", "~", "null"):
            value = None
        elif lower in ("true", "false"):
            value = lower == "true"
        elif lower in _BOOLISH:
            trap = "bool"
        elif _INT.match(text):
            value = int(text.replace("_", ""))
        elif _HEX.match(text):
            value = int(text, 16)
        elif _OCTAL.match(text):
            trap = "octal"
        elif _SEXAGESIMAL.match(text):
            trap = "sexagesimal"
        elif _FLOAT.match(text):
            value = float(text.replace("_", ""))
        elif lower in _SPECIAL:
            value = _SPECIAL[lower]
    return Node(value, place, text, quoted, trap)


def from_plain(value: Any, place: Place) -> Node:
    """A node of a Python value, every part of it at one place."""
    if isinstance(value, dict):
        return Node({str(k): from_plain(v, place) for k, v in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([from_plain(v, place) for v in value], place)
    return Node(value, place, str(value), quoted=isinstance(value, str))


def to_plain(node: Node) -> Any:
    """The Python value of a node, interpolations unresolved."""
    if node.is_map:
        return {k: to_plain(v) for k, v in node.value.items()}
    if node.is_list:
        return [to_plain(v) for v in node.value]
    return node.value


def read_yaml(path: str | Path, source: Literal["file", "preset"], problems: Problems) -> Node | None:
    """The root mapping of a file, or None when it cannot be read at all (the reason is in `problems`)."""
    name = shown(path)
    at = Place(source, name, 1, 1)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        problems.add(Place(source, name), "", f"cannot be read: {error.strerror}")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        problems.add(Place(source, name, line, column), "", "not UTF-8 text; save the file as UTF-8")
        return None
    root = parse(text, source, name, problems)
    if root is None:
        return None
    if not isinstance(root.value, dict):
        what = "the file is empty" if root.value is None else f"the top is {kind_of(root)}, not a mapping"
        problems.add(at, "", f"{what}; it must hold the keys model, datasets, run")
        return None
    return root


def kind_of(node: Node) -> str:
    """What a person would call the value."""
    if node.is_map:
        return "a mapping"
    if node.is_list:
        return "a list"
    if node.value is None:
        return "null"
    if isinstance(node.value, str):
        return f"the text {node.text!r}"
    return {bool: "the bool", int: "the int", float: "the float"}[type(node.value)] + f" {node.text}"


def parse(text: str, source: Literal["file", "preset", "option"], name: str, problems: Problems) -> Node | None:
    """YAML text as nodes. Tags, duplicate keys and bombs of aliases are problems."""
    try:
        composed = yaml.compose(text, Loader=yaml.SafeLoader)
        if composed is None:
            return scalar("", Place(source, name, 1, 1))
        return _Reader(source, name, problems).read(composed, 0, _place(source, name, composed.start_mark))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.add(_place(source, name, mark) if mark else Place(source, name), "", _syntax(text, mark, error))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        problems.add(Place(source, name, line, column), "", "a character that YAML does not allow; delete it")
    except (_TooMuch, RecursionError):
        problems.add(Place(source, name, 1, 1), "", "nested or aliased too much to be a configuration")
    return None


class _TooMuch(Exception):
    """The file expands to more than a configuration can hold."""


def _place(source: Any, name: str, mark: Any) -> Place:
    return Place(source, name, mark.line + 1, mark.column + 1)


def _syntax(text: str, mark: Any, error: yaml.MarkedYAMLError) -> str:
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab stands in the indentation; YAML wants spaces"
    said = " ".join(str(s) for s in (error.context, error.problem) if s)
    return f"not valid YAML: {said}"


class _Reader:
    """Turns composed YAML nodes into ours."""

    def __init__(self, source: Any, name: str, problems: Problems) -> None:
        self.source, self.name, self.problems = source, name, problems
        self.count = 0

    def read(self, node: yaml.Node, depth: int, place: Place) -> Node:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise _TooMuch
        if node.tag not in _PLAIN_TAGS and node.tag != _MERGE:
            said = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.problems.add(self._at(node), "", f"the tag {said} is not allowed; write plain values")
            return Node(None, place, quoted=True)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, depth), place)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.read(child, depth + 1, self._at(child)) for child in node.value], place)
        # Text that YAML would read as a number was marked `!!str` by the writer: it is text like a quoted word.
        implicit = _IMPLICIT.resolve(yaml.ScalarNode, node.value, (True, False))
        said_str = node.tag.endswith(":str") and implicit != node.tag
        style = getattr(node, "style", None)  # a quote character, | or >; None for a plain word
        return scalar(node.value, place, quoted=style is not None or said_str)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        under: dict[str, Node] = {}
        for key_node, value_node in node.value:
            at = self._at(key_node)
            if key_node.tag == _MERGE:
                under.update(self._merged(value_node, depth, at))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.add(at, "", "a key must be a word")
                continue
            key = key_node.value
            if key in children:
                first = children[key].place.line
                self.problems.add(at, key, f"the key stands here a second time (first in line {first}); delete one")
                continue
            children[key] = self.read(value_node, depth + 1, at)
        return {**under, **children}

    def _merged(self, node: yaml.Node, depth: int, at: Place) -> dict[str, Node]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Node] = {}
        for one in reversed(sources):
            read = self.read(one, depth + 1, at)
            if not read.is_map:
                self.problems.add(at, "<<", "only a mapping can be merged in")
                continue
            merged.update(read.value)
        return merged

    def _at(self, node: yaml.Node) -> Place:
        return _place(self.source, self.name, node.start_mark)

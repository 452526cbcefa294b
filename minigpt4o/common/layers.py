"""Lay configurations over each other: preset < the user's file < the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from minigpt4o.common.problems import Place, Problems
from minigpt4o.common.yaml_places import Node, parse, scalar

_KEY_VALUE = re.compile(r"[\w.*/+-]+=")


@dataclass(frozen=True)
class Option:
    """One value from the command line. `label` is what the person typed, for errors."""

    key: str
    value: str
    label: str = ""

    @property
    def place(self) -> Place:
        return Place("option", self.label or f"--options {self.key}={self.value}")


def read_options(words: Sequence[str | Option]) -> tuple[list[Option], list[str]]:
    """Options from `a.b=c d.e=f` or pairs `a.b c d.e f`, and the words that are neither."""
    options: list[Option] = []
    lost: list[str] = []
    waiting = ""
    for word in words:
        if isinstance(word, Option):
            options.append(word)
        elif waiting:
            options.append(Option(waiting, word, f"--options {waiting} {word}"))
            waiting = ""
        elif _KEY_VALUE.match(word):
            key, value = word.split("=", 1)
            options.append(Option(key, value))
        elif re.fullmatch(r"[\w.*/+-]+", word):
            waiting = word
        else:
            lost.append(word)
    if waiting:
        lost.append(waiting)
    return options, lost


def lay(base: Node | None, over: Node) -> Node:
    """`over` laid on `base`. Mappings are joined; a part of another `name` starts afresh; anything else replaces."""
    if base is None:
        return over
    if base.is_map and over.is_map:
        if _name(over) is not None and _name(base) is not None and _name(over) != _name(base):
            return over
        joined = dict(base.value)
        for key, child in over.value.items():
            joined[key] = lay(joined.get(key), child)
        return Node(joined, over.place if over.place.source != "option" else base.place)
    if over.is_map and isinstance(base.value, str):  # `engine: deepspeed` below `engine: {stage: 2}`
        return over if "name" in over.value else Node({"name": base, **over.value}, over.place)
    if base.is_map and isinstance(over.value, str) and over.value == _name(base):
        return base  # the same part named again keeps its values
    return over


def _name(node: Node) -> str | None:
    name = node.value.get("name")
    return name.value if name is not None and isinstance(name.value, str) else None


def lay_options(root: Node, options: Sequence[Option], problems: Problems) -> Node:
    """The options laid on the user's file; `*` in a key means every key that stands there."""
    tree = Node({}, Place("option", "--options"))
    for option in options:
        value = _value(option, problems)
        if value is None:
            continue
        for path in _expand(root, option.key.split(".")):
            if "" in path:
                problems.add(option.place, "", f"{option.key!r} is not a dotted key such as run.max_epoch")
                break
            _put(tree, path, value, option.place)
    return lay(root, _index_lists(root, tree, problems))


def _value(option: Option, problems: Problems) -> Node | None:
    """A bare word is one value; what begins like a list, a mapping, a quote or a tag is read as YAML."""
    if option.value == "":
        return Node("", option.place, "", quoted=True)
    if option.value[0] not in "[{\"'!&*":
        return scalar(option.value, option.place)
    trial = Problems()
    node = parse(option.value, "option", str(option.place), trial)
    if node is None or trial.found:
        problems.add(option.place, "", trial.found[0].what)
        return None
    return _at(node, option.place)


def _at(node: Node, place: Place) -> Node:
    value = node.value
    if node.is_map:
        value = {k: _at(v, place) for k, v in node.value.items()}
    elif node.is_list:
        value = [_at(v, place) for v in node.value]
    return Node(value, place, node.text, node.quoted, node.trap)


def _expand(root: Node, path: list[str]) -> list[list[str]]:
    if "*" not in path:
        return [path]
    star = path.index("*")
    node: Node | None = root
    for key in path[:star]:
        node = node.value.get(key) if node is not None and node.is_map else None
    names = list(node.value) if node is not None and node.is_map else []
    return [full for name in names for full in _expand(root, [*path[:star], name, *path[star + 1 :]])]


def _put(tree: Node, path: list[str], value: Node, place: Place) -> None:
    for key in path[:-1]:
        child = tree.value.get(key)
        if child is None or not child.is_map:
            child = Node({"name": child} if child is not None else {}, place)
            tree.value[key] = child
        tree = child
    tree.value[path[-1]] = lay(tree.value.get(path[-1]), value)


def _index_lists(base: Node, over: Node, problems: Problems) -> Node:
    """`a.list.0=x` names an item of a list that the file holds: give the whole list with that item changed."""
    for key, child in list(over.value.items()):
        below = base.value.get(key) if base.is_map else None
        if below is None or not child.is_map:
            continue
        if below.is_list and child.value and all(k.isdigit() for k in child.value):
            items = list(below.value)
            for index, item in child.value.items():
                if int(index) >= len(items):
                    problems.add(item.place, key, f"the list has {len(items)} items, there is none at {index}")
                    continue
                items[int(index)] = lay(items[int(index)], item)
            over.value[key] = Node(items, child.place)
        elif below.is_map:
            _index_lists(below, child, problems)
    return over

"""The data sets that a preset stands for, read from the YAML alone: no torch, no data, nothing is built."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.common import like, presets
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.problems import Problems
from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import Node, read_yaml, to_plain

ABOUT = (
    "licence",
    "source",
    "layout",
    "download",
    "count",
    "notes",
)  # the lines of `about`, in the order they are told
_ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+)(?:,([^${}]*))?\}")
_COLUMNS = ("name", "what it is", "count", "licence", "language", "builder")
# Title of a part of the page -> whether a set belongs there; the first that says yes has it.
_PARTS: dict[str, Callable[[KnownSet], object]] = {
    "Toy world and small sets": lambda s: re.match(r"toy_|easy_vqa|\w+_digits?$", s.name),
    "Benchmarks": lambda s: s.name.startswith("benchmark_"),
    "Your own files": lambda s: s.name.startswith("own_"),
    "Sounds": lambda s: "audio" in s.kinds and "image" not in s.kinds,
    "Japanese": lambda s: s.language == "ja",
    "Pictures and text": lambda s: True,
}
_ORDER = ("Pictures and text", "Japanese", "Sounds", "Benchmarks", "Your own files", "Toy world and small sets")


@dataclass(frozen=True)
class KnownSet:
    """One data set that can be named in a configuration."""

    name: str
    what: str  # one line: the comment on top of its file
    builder: str
    language: str
    kinds: tuple[str, ...]  # image, audio: what its processors open
    annotations: dict[str, str]  # split -> files or pattern, MINIGPT4O_DATA and the like filled in
    media_root: str
    about: dict[str, str]  # those of ABOUT that are told
    like: str  # the set it is told in terms of, if any
    file: Path
    node: dict[str, Any] = field(repr=False, default_factory=dict)  # the whole node with the other's keys


def known_sets(plugins: Sequence[str] = ()) -> dict[str, KnownSet]:
    """Every data set by name. Raises ConfigError that holds every problem of the files."""
    problems = Problems()
    found = {name: _known(name, problems, plugins) for name in presets.names("datasets", plugins)}
    problems.refuse()
    return {name: one for name, one in found.items() if one is not None}


def known_set(name: str, plugins: Sequence[str] = ()) -> KnownSet:
    """One data set. Raises ConfigError naming the nearest if there is none."""
    problems = Problems()
    found = _known(name, problems, plugins) if presets.find("datasets", name, plugins) else None
    problems.refuse()
    if found is None:
        names = presets.names("datasets", plugins)
        close = nearest(name, names)
        mend = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(names)}"
        raise ConfigError(f"there is no data set {name!r}; {mend}")
    return found


def markdown(sets: Iterable[KnownSet]) -> str:
    """The page of all data sets: a table for each part, then where each set is from and how its files must lie."""
    by_name = {one.name: one for one in sets}
    told = {name: _own_lines(one, by_name.get(one.like)) for name, one in by_name.items()}
    parts: dict[str, list[KnownSet]] = {title: [] for title in _ORDER}
    for one in by_name.values():
        parts[next(title for title, test in _PARTS.items() if test(one))].append(one)
    named = {one.like for one in by_name.values() if told[one.name]}  # links lead to them
    shown = {name for name in by_name if told[name] or name in named}
    lines = [_HEAD]
    for title, inside in parts.items():
        if inside:
            rows = [_table_row(one, one.name in shown) for one in inside]
            lines += [f"## {title}\n", _row(_COLUMNS), _row(["---"] * len(_COLUMNS)), *rows, ""]
    lines.append("## Where from, and how the files lie\n")
    lines += [_details(one, told[one.name]) for title in _ORDER for one in parts[title] if one.name in shown]
    return "\n".join(lines).rstrip() + "\n"


_HEAD = """# Known data sets

<!-- Made of minigpt4o/configs/datasets/*.yaml by `python -m minigpt4o.cli data list --markdown`; do not edit. -->

Name one under `datasets:` and it is read in the form in which it is published. Its files lie below `MINIGPT4O_DATA`
(default `data`) as told below, and any key can be laid over: `datasets: {coco_caption: {media_root: /coco}}`. A set of
your own that differs in a few keys says so: `datasets: {mine: {like: own_llava, annotations: {train: my.json}}}`; each
key beside `like` takes the place of that key. Whether you may use a set, and for what, its licence says, not this page.
"""


def _known(name: str, problems: Problems, plugins: Sequence[str]) -> KnownSet | None:
    file = presets.find("datasets", name, plugins)
    node = _node(file, name, problems) if file is not None else None
    if file is None or node is None:
        return None
    told = node.value.get(like.LIKE)
    tree = _filled(to_plain(like.resolved(node, lambda f, n: _node(f, n, problems), problems, plugins, (name,))))
    return KnownSet(
        name=name,
        what=_first_comment(file),
        builder=str(tree.get("builder", "")),
        language=str(tree.get("language", "")),
        kinds=_kinds(tree),
        annotations={str(split): str(files) for split, files in _mapping(tree, "annotations").items()},
        media_root=str(tree.get("media_root", "")),
        about={key: str(_mapping(tree, "about")[key]) for key in ABOUT if key in _mapping(tree, "about")},
        like=str(told.value) if told is not None else "",
        file=file,
        node=tree,
    )


def _node(file: Path, name: str, problems: Problems) -> Node | None:
    tree = read_yaml(file, "preset", problems)
    node: Node | None = tree
    for key in ("datasets", name):
        node = node.value.get(key) if node is not None and node.is_map else None
    if tree is not None and (node is None or not node.is_map):
        problems.add(tree.place, "", f"this preset file must hold a mapping `datasets.{name}`")
        return None
    return node


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _kinds(tree: Mapping[str, Any]) -> tuple[str, ...]:
    fields = {"image": "vis_processor", "audio": "audio_processor"}
    return tuple(kind for kind, key in fields.items() if tree.get(key))


def _filled(value: Any) -> Any:
    """The tree with `${oc.env:NAME,default}` filled in; other references stay as they are written."""
    if isinstance(value, dict):
        return {key: _filled(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child) for child in value]
    if isinstance(value, str):
        return _ENVIRONMENT.sub(lambda m: os.environ.get(m[1], m[2] if m[2] is not None else m[0]), value)
    return value


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


# --- the page


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table_row(one: KnownSet, linked: bool) -> str:
    name = f"[`{one.name}`](#{one.name.lower()})" if linked else f"`{one.name}`"
    cells = [one.what, *(one.about.get(key, "") for key in ("count", "licence")), one.language, one.builder]
    return _row([name, *(_escaped(cell).replace("|", "\\|") for cell in cells)])


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is written: `<p>` and `*` are no markup outside of backquotes."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*<])", r"\\\1", p) for p in pieces)


def _own_lines(one: KnownSet, base: KnownSet | None) -> dict[str, str]:
    """What the set tells that the set it is like does not."""
    known = base.about if base is not None else {}
    return {key: text for key, text in one.about.items() if known.get(key) != text}


def _details(one: KnownSet, told: Mapping[str, str]) -> str:
    lines = [f"### {one.name}\n"]
    if one.like:
        lines.append(f"- as [`{one.like}`](#{one.like.lower()}){', but:' if told else ''}")
    lines += [f"- {key}: {_escaped(told[key])}" for key in ABOUT if key in told and key not in ("count", "licence")]
    return "\n".join(lines) + "\n"

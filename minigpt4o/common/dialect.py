"""Bring a configuration written for MiniGPT-4 or LAVIS into our words, key by key, before anything is filled in.

`words_*` in the neighbouring modules are the tables. A key either takes effect (its value moves to our key, its place
goes with it) or is reported once, with the reason.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.common.interpolate import InterpolationProblem, Resolver
from minigpt4o.common.problems import Place, Problems
from minigpt4o.common.schema import Misfit, fit, parse_type
from minigpt4o.common.yaml_places import Node, from_plain

log = logging.getLogger(__name__)
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")


@dataclass(frozen=True)
class Word:
    """One key of the reference: the type of its value, and what becomes of it.

    `to` is the dotted key of ours that takes the value; `why` the reason that it has no effect; `act` does what is
    more than moving. One of them is given. `ours`: the key is ours too, and yet looked at (the reference allows null).
    """

    type: str
    to: str = ""
    why: str = ""
    act: Callable[[Rewrite, str, Any], None] | None = None
    ours: bool = False

    def doc(self, path: str) -> str:
        """What becomes of the key, for the documentation. `path` is its node."""
        if self.to:
            return f"`{path}.{self.to}`"
        return f"no effect: {self.why}" if self.why else (self.act.__doc__ or "").strip()


@dataclass(frozen=True)
class Note:
    """A key without effect, or with another one than in the reference."""

    place: Place
    key: str
    what: str

    @property
    def group(self) -> tuple[str, str]:
        """The same key of many data sets is told once."""
        return re.sub(r"^(datasets|evaluation_datasets)\.[^.]+", r"\1.*", self.key), self.what


@dataclass
class Report:
    """What the reader of the file should know about its keys."""

    notes: list[Note] = field(default_factory=list)

    def add(self, place: Place, key: str, what: str) -> None:
        note = Note(place, key, what)
        if note not in self.notes:
            self.notes.append(note)

    def lines(self) -> list[str]:
        """One line for each key, aligned: where, key, what about it."""
        groups: dict[tuple[str, str], list[Note]] = {}
        for note in sorted(self.notes, key=lambda n: (n.place.source != "file", n.place.line, n.place.column)):
            groups.setdefault(note.group, []).append(note)
        rows = []
        for (key, what), notes in groups.items():
            place = notes[0].place
            where = f"line {place.line}" if place.source == "file" else "--options"
            many = f" ({len(notes)} times)" if len(notes) > 1 else ""
            rows.append((where, key if many else notes[0].key, what + many))
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        return [f"{where:<{widths[0]}}  {key:<{widths[1]}}  {what}" for where, key, what in rows]

    def say(self, path: str) -> None:
        """One warning with a line for each key; nothing if there is nothing to say."""
        lines = self.lines()
        if lines:
            keys = "1 key" if len(lines) == 1 else f"{len(lines)} keys"
            log.warning(
                "%s: written for MiniGPT-4 or LAVIS; %s without effect here, or with another one:\n  %s",
                path,
                keys,
                "\n  ".join(lines),
            )


@dataclass
class Rewrite:
    """One node (model, run, a data set) on its way into our words."""

    root: Node
    node: Node
    path: str  # dotted
    problems: Problems
    report: Report
    original: Resolver  # of the tree before any key of it moved
    moved: dict[str, str]  # dotted key of the reference -> ours, for ${...}
    base: Node | None = None  # the preset below
    has: frozenset[str] = frozenset()  # keys that are ours on this node: they stay as they are
    taken: dict[str, Node] = field(default_factory=dict)  # keys taken away, with their values

    def words(self, words: Mapping[str, Word]) -> None:
        """Treat every key of the table that stands here, in the table's order."""
        for key, word in words.items():
            if key in self.node.value and (word.ours or key not in self.has):
                self._word(key, word)

    def _word(self, key: str, word: Word) -> None:
        raw = self.node.value.pop(key)
        self.taken[key] = raw
        dotted = f"{self.path}.{key}" if self.path else key
        self.problems.renamed[raw.place] = dotted
        try:
            value = fit(self.resolved(raw, key), parse_type(f"{word.type} | None" if word.why else word.type))
        except Misfit as misfit:
            for at, keys, what in misfit.found:
                self.problems.add(at.place, ".".join((dotted, *keys)), what)
            return
        if word.why:
            self.note(key, word.why)
        elif word.to:
            self.put(word.to, raw)
        elif word.act is not None:
            word.act(self, key, value)

    def resolved(self, node: Node, key: str) -> Node:
        """A node with its `${...}` replaced; as it is if that needs defaults, which are not there yet."""
        with contextlib.suppress(InterpolationProblem):
            path = (*self.path.split("."), key) if self.path else (key,)
            return self.original.resolve(node, path) if node.interpolated else node
        return node

    def note(self, key: str, what: str) -> None:
        """Tell something about a key of this node."""
        place = (self.taken.get(key) or self.node.value[key]).place
        self.report.add(place, f"{self.path}.{key}" if self.path else key, what)

    def put(self, to: str, value: Any, key: str = "") -> None:
        """Write our dotted key `to`; `value` is a node, or a plain value that stands at the place of `key`."""
        node = value if isinstance(value, Node) else from_plain(value, self.taken[key].place)
        if isinstance(value, Node) and value.place in self.problems.renamed:
            self.moved[self.problems.renamed[value.place]] = f"{self.path}.{to}"
        *above, last = to.split(".")
        holder = self.node
        for word in above:
            child = holder.value.get(word)
            if child is None or not child.is_map:
                child = Node({"name": child} if child is not None else {}, child.place if child else node.place)
                holder.value[word] = child
            holder = child
        there = holder.value.get(last)
        if there is None or (node.place.source == "option") > (there.place.source == "option"):
            holder.value[last] = node
        elif node.place.source == there.place.source:
            said = self.problems.renamed.get(node.place, key)
            self.problems.add(node.place, said, f"means the same as {self.path}.{to} ({there.place}); delete one")

    def current(self, key: str) -> Any:
        """The plain value of a dotted key of ours: the user's, else the preset's, else None."""
        for node in (self.node, self.base):
            for word in key.split("."):
                node = node.value.get(word) if node is not None and node.is_map else None
            if node is not None:
                if node.is_list:
                    return [item.value for item in node.value]
                return node.value
        return None


def follow(root: Node, moved: Mapping[str, str]) -> None:
    """`${model.llama_model}` means what `llama_model` became."""
    if not moved:
        return
    for node in [*root.value.values()] if root.is_map else [*root.value] if root.is_list else []:
        if node.is_map or node.is_list:
            follow(node, moved)
        elif node.interpolated:
            node.value = _REFERENCE.sub(lambda m: f"${{{moved.get(m[1], m[1])}}}", node.value)

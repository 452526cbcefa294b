"""Data sets told in terms of another: `like: NAME` takes that preset, and what stands beside it replaces its keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from minigpt4o.common import presets
from minigpt4o.common.layers import lay
from minigpt4o.common.problems import Problems
from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import Node

LIKE = "like"
JOINED = "about"  # the one key whose lines are laid over those of the other set, each by itself

Read = Callable[[Path, str], "Node | None"]  # a preset's file and name -> its node, None if it is broken


def resolved(
    node: Node, read: Read, problems: Problems, plugins: Sequence[str] = (), seen: tuple[str, ...] = ()
) -> Node:
    """The node without `like`, complete. `seen`: the presets that led here, so that a circle is told and left."""
    chosen = node.value.get(LIKE)
    if chosen is None:
        return node
    own = Node({key: child for key, child in node.value.items() if key != LIKE}, node.place)
    word = chosen.value if isinstance(chosen.value, str) else ""
    file = presets.find("datasets", word, plugins)
    if file is None or word in seen:
        problems.add(chosen.place, LIKE, _fault(word, seen, plugins))
        return own
    base = read(file, word)
    if base is None:
        return own
    base = resolved(base, read, problems, plugins, (*seen, word))
    about = lay(base.value.get(JOINED), own.value[JOINED]) if JOINED in own.value else base.value.get(JOINED)
    joined = {**base.value, **own.value} | ({JOINED: about} if about is not None else {})
    return Node(joined, own.place)


def _fault(word: str, seen: tuple[str, ...], plugins: Sequence[str]) -> str:
    if word in seen:
        return f"`like` goes round in a circle: {' -> '.join((*seen, word))}"
    known = presets.names("datasets", plugins)
    close = nearest(word, known)
    mend = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"`like` names the preset of a data set; there is no {word!r}; {mend}"

"""A YAML file plus `--options` -> checked `Settings`, or every problem at once. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.layers import Option, lay_options, read_options
from minigpt4o.common.loading import Loading
from minigpt4o.common.problems import ConfigProblems, Place, Problem, Problems
from minigpt4o.common.registry import registry
from minigpt4o.common.settings import Settings
from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import Node, from_plain, read_yaml, shown

__all__ = ["Option", "Settings", "load_settings"]


def load_settings(
    cfg_path: str | Path, options: Sequence[str | Option] = (), needs: Sequence[str] = ("model", "run")
) -> Settings:
    """Read, lay, fill, check. Raises ConfigError whose text has one line for every problem.

    `options` are `a.b=c` words, or pairs of words; `needs` are the top keys that must be there.
    """
    problems = Problems()
    _find_file(cfg_path)
    user = read_yaml(cfg_path, "file", problems)
    given, lost = read_options(options)
    for word in lost:
        problems.add(Place("option", f"--options {word}"), "", f"{word!r} is no key=value")
    if user is None:
        problems.refuse()
        raise AssertionError("unreachable: an unreadable file is a problem")
    root = lay_options(user, given, problems)
    _add_plugins(root, problems)
    return Loading(root, problems, shown(cfg_path), list(needs)).settings()


def _find_file(cfg_path: str | Path) -> None:
    path = Path(cfg_path)
    if path.is_file():
        return
    if path.is_dir():
        inside = ", ".join(sorted(f.name for f in path.glob("*.yaml"))) or "no YAML file"
        what = f"it is a folder; name a file in it ({inside})"
    else:
        folder = path.parent if path.parent.is_dir() else None
        close = nearest(path.name, [f.name for f in folder.glob("*.y*ml")]) if folder else []
        what = "no such file; "
        what += f"did you mean {folder / close[0]}?" if folder and close else "check the spelling and the folder"
    raise ConfigProblems([Problem(Place("option", f"--cfg-path {path}"), "", what)])


def _add_plugins(root: Node, problems: Problems) -> None:
    node = root.value.get("plugins")
    if node is None or node.value is None:
        return
    if not node.is_list or any(not isinstance(n.value, str) for n in node.value):
        problems.add(node.place, "plugins", "a list of module names is wanted here, such as [my_lab.my_sets]")
        root.value["plugins"] = from_plain([], node.place)
        return
    for item in node.value:
        try:
            registry.add_plugin(item.value)
        except (ConfigError, ImportError, ValueError) as error:
            problems.add(item.place, "plugins", str(error).removeprefix("plugins: "))

"""Tell what there is: the names of a kind, and every value of a configuration with where it came from."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from minigpt4o.common import presets
from minigpt4o.common.config import Settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.common.source import nearest
from minigpt4o.common.yaml_places import shown

# Names that are YAML files, not classes.
PRESETS = {"dataset": "datasets", "model_type": "models"}


def say(text: str) -> None:
    """One line of a command's output."""
    sys.stdout.write(f"{text}\n")


def list_command(args: argparse.Namespace) -> int:
    """`list [KIND]`."""
    for plugin in args.plugins:
        registry.add_plugin(plugin)
    if args.kind is None:
        for kind in sorted([*registry.homes, *PRESETS]):
            say(f"{kind:14} {len(_names(kind)):3} known")
        return 0
    print_kind(args.kind)
    return 0


def print_kind(kind: str) -> None:
    """The names of a kind, with what each is and where it stands."""
    known = [*registry.homes, *PRESETS]
    if kind not in known and kind.removesuffix("s") in known:
        kind = kind.removesuffix("s")
    if kind not in known:
        close = nearest(kind, known, n=1)
        mend = f"did you mean {close[0]}?" if close else f"kinds: {', '.join(sorted(known))}"
        raise ConfigError(f"--list {kind}: there is no such kind; {mend}")
    names = _names(kind)
    width = max(map(len, names), default=0)
    for name in names:
        say(f"{name:{width}}  {_about(kind, name)}")


def _names(kind: str) -> list[str]:
    return presets.names(PRESETS[kind], registry.plugins) if kind in PRESETS else registry.names(kind)  # type: ignore[arg-type]


def _about(kind: str, name: str) -> str:
    if kind in PRESETS:
        file = presets.find(PRESETS[kind], name, registry.plugins)  # type: ignore[arg-type]
        assert file is not None
        return f"{_first_comment(file)}  ({shown(file)})"
    entry = registry.entry(kind, name)
    alias = f" (= {entry.names[0]})" if name != entry.names[0] else ""
    return f"{entry.doc}{alias}  ({shown(entry.file)}:{entry.line})"


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def print_config(settings: Settings) -> None:
    """`key = value   # where it came from`, aligned."""
    rows = [(key, _written(_at(settings.tree, key)), origin) for key, origin in settings.sources.items()]
    left = [f"{key} = {value}" for key, value, _ in rows]
    width = min(max(map(len, left), default=0), 72)
    for text, (_, _, origin) in zip(left, rows, strict=True):
        say(f"{text:{width}}   # {origin}")


def _at(tree: Any, key: str) -> Any:
    for word in key.split("."):
        tree = tree[int(word) if isinstance(tree, list) else word]
    return tree


def _written(value: Any) -> str:
    return value if isinstance(value, str) and value.startswith("${") else json.dumps(value, ensure_ascii=False)

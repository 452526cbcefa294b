"""Write the defaults of the classes into a tree of nodes, so that `${...}`, the check and the dump see them."""

from __future__ import annotations

from collections.abc import Iterable

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.interpolate import InterpolationProblem, Resolver
from minigpt4o.common.problems import Place
from minigpt4o.common.registry import registry
from minigpt4o.common.source import FieldSpec
from minigpt4o.common.yaml_places import Node, from_plain, shown

MAX_PARTS = 12  # parts within parts within parts


class Filler:
    """One pass over a tree; remembers which keys each node takes."""

    def __init__(self, resolver: Resolver, profile: Node | None = None) -> None:
        self.resolver = resolver
        self.profile = profile  # the default of every key of this name: `profile:` at the top of the file
        self.keys: dict[str, list[str]] = {}  # dotted node -> the keys it takes

    def fill(self, node: Node, specs: Iterable[FieldSpec], path: tuple[str, ...], file: str) -> None:
        specs = list(specs)
        self.keys[".".join(path)] = [spec.name for spec in specs]
        for spec in specs:
            if spec.name == "profile" and self.profile is not None:
                node.value.setdefault(spec.name, self.profile)
            if spec.name not in node.value and not spec.required:
                place = Place("default", shown(file) if file else "default", spec.line)
                node.value[spec.name] = from_plain(spec.default, place)
            child = node.value.get(spec.name)
            if child is None or not spec.part_kind or len(path) > MAX_PARTS:
                continue
            default = spec.default if isinstance(spec.default, str) else ""
            if not spec.many:
                self.part(node.value, spec.name, spec.part_kind, default, (*path, spec.name))
            elif child.is_map:
                for key in child.value:
                    self.part(child.value, key, spec.part_kind, "", (*path, spec.name, key))
            elif child.is_list:
                named = {str(i): item for i, item in enumerate(child.value)}
                for key in named:
                    self.part(named, key, spec.part_kind, "", (*path, spec.name, key))
                child.value = list(named.values())

    def part(self, holder: dict[str, Node], key: str, kind: str, default: str, path: tuple[str, ...]) -> None:
        """Write a part under `holder[key]` out as a mapping with `name` and its class's defaults."""
        node = holder[key]
        if node.interpolated:
            try:
                node = self.resolver.resolve(node, path)
            except InterpolationProblem:
                return
            if self.resolver.secret(holder[key]):
                return  # keep it unresolved in the tree; the check resolves it again
        if isinstance(node.value, str):
            node = Node({"name": node}, node.place)
        if not node.is_map:
            return
        if "name" not in node.value and default:
            node.value["name"] = Node(default, Place("default", "default"), default, quoted=True)
        holder[key] = node
        name = node.value.get("name")
        if name is None or not isinstance(name.value, str) or name.interpolated:
            return
        try:
            entry = registry.entry(kind, name.value)
        except ConfigError:
            return  # told by the check
        self.fill(node, entry.fields, path, entry.file)

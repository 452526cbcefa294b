"""Check a tree of nodes against the `Config` fields of the classes it names, and say everything that does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.fill import Filler
from minigpt4o.common.interpolate import InterpolationProblem, Resolver
from minigpt4o.common.problems import Place, Problems
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.schema import Misfit, Type, fit, parse_type
from minigpt4o.common.source import Entry, FieldSpec, nearest
from minigpt4o.common.yaml_places import Node, kind_of, to_plain

# What the shipped files of other projects hold where the user must write a value.
PLACEHOLDER = re.compile(r"\?\?\?$|\W*please set (this|the value|your|it)\b|(.*/)?path/to(/|$)", re.IGNORECASE)
BAD: Any = object()  # stands for a value that did not fit; never leaves this package
MANY = 10  # keys told when none is near

# Words of other frameworks -> ours, said only where ours is a key of the configuration.
FAMILIAR = {
    "learning_rate": "init_lr",
    "lr": "init_lr",
    "num_train_epochs": "max_epoch",
    "max_epochs": "max_epoch",
    "gradient_accumulation_steps": "accum_grad_iters",
    "per_device_train_batch_size": "batch_size_train",
    "llama_model": "llm",
    "vit_model": "encoders",
    "prompt_template": "template",
    "weights": "ckpt",
    "type": "name",
}


class Checker:
    """Turns filled nodes into values; keeps the resolved dump and the origin of every value."""

    def __init__(
        self, resolver: Resolver, problems: Problems, keys: dict[str, list[str]], profile: Node | None = None
    ) -> None:
        self.resolver, self.problems, self.keys, self.profile = resolver, problems, keys, profile
        self.dump: dict[tuple[str, ...], Any] = {}
        self.sources: dict[str, str] = {}

    def fields(
        self, node: Node, specs: Sequence[FieldSpec], path: tuple[str, ...], also: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The values of a node by field. `also` are keys that the caller reads itself."""
        known = [*also, *(spec.name for spec in specs)]
        for key, child in node.value.items():
            if key not in known:
                self.problems.add(child.place, ".".join((*path, key)), self._unknown(key, known, path))
        values = {}
        for spec in specs:
            if spec.name in node.value:
                values[spec.name] = self._field(node.value[spec.name], spec, (*path, spec.name))
            else:
                wanted = parse_type(spec.type)
                what = f"is required ({wanted})" + (f": {spec.doc}" if spec.doc else "")
                self.problems.add(node.place, ".".join((*path, spec.name)), what)
        return {key: value for key, value in values.items() if value is not BAD}

    def plain(self, node: Node, kind: Type, path: tuple[str, ...]) -> Any:
        """One value that is no part; BAD if it does not fit."""
        raw = node
        node = self._resolved(node, path)
        if node is BAD:
            return BAD
        if self._placeholder(node, path):
            return BAD
        try:
            value = fit(node, kind)
        except Misfit as misfit:
            for at, keys, what in misfit.found:
                if self.resolver.secret(raw):  # never tell a value of the environment
                    what = f"{raw.text or 'an interpolation'} gives a value that does not fit; {kind} is wanted here"
                self.problems.add(at.place, ".".join((*path, *keys)), what)
            return BAD
        self._write_tree(raw, value, path)
        return value

    def part(self, node: Node, kind: str, path: tuple[str, ...], nullable: bool = False) -> Any:
        """A nested part: its name and the checked values of its class."""
        raw = node
        node = self._resolved(node, path) if node.interpolated else node
        if node is BAD:
            return BAD
        if node.value is None and nullable:
            self.write(path, None, node.place)
            return None
        if isinstance(node.value, str):
            node = Node({"name": node}, node.place)
        if raw is not node and node.is_map:
            Filler(self.resolver, self.profile).part({"it": node}, "it", kind, "", path)
        name = node.value.get("name") if node.is_map else None
        if name is None:
            known = ", ".join(registry.names(kind))
            got = "a mapping without `name`" if node.is_map else kind_of(node)
            what = f"a {kind} is wanted here: a name, or a mapping with `name`; not {got}; known: {known}"
            self.problems.add(node.place, ".".join(path), what)
            return BAD
        entry = self.selected(name, kind, (*path, "name"))
        if entry is None:
            return BAD
        values = self.fields(node, entry.fields, path, also=["name"])
        if raw is not node and raw.interpolated and self.resolver.secret(raw):
            self.forget(path)
            self.write(path, raw.value, raw.place)
        return Part(kind, str(self._resolved(name, (*path, "name")).value), values, str(node.place))

    def selected(self, name: Node, kind: str, path: tuple[str, ...]) -> Entry | None:
        """The registered class that a name node chooses."""
        word = self.plain(name, Type("str"), path)
        if word is BAD:
            return None
        try:
            return registry.entry(kind, word)
        except ConfigError as error:
            self.problems.add(name.place, ".".join(path), str(error))
            return None

    def write(self, path: tuple[str, ...], value: Any, place: Place) -> None:
        self.dump[path] = value
        self.sources[".".join(path)] = place.origin

    def _field(self, node: Node, spec: FieldSpec, path: tuple[str, ...]) -> Any:
        if not spec.part_kind:
            value = self.plain(node, parse_type(spec.type), path)
            return value if value is BAD else self._names_of_a_kind(node, spec, value, path)
        if not spec.many:
            return self.part(node, spec.part_kind, path, nullable="None" in spec.type)
        raw = node
        node = self._resolved(node, path) if node.interpolated else node
        if node is BAD:
            return BAD
        if spec.type.startswith("list") and node.value == {}:
            node = Node([], node.place)
        if not (node.is_list if spec.type.startswith("list") else node.is_map):
            wanted = "a list" if spec.type.startswith("list") else "a mapping"
            self.problems.add(
                node.place, ".".join(path), f"{wanted} of {spec.part_kind}s is wanted here, not {kind_of(node)}"
            )
            return BAD
        items = node.value if node.is_map else {str(i): item for i, item in enumerate(node.value)}
        if not items:
            self.write(path, [] if node.is_list else {}, node.place)
        parts = {key: self.part(child, spec.part_kind, (*path, key)) for key, child in items.items()}
        self._free_names(items, spec, path)
        if raw.interpolated and self.resolver.secret(raw):
            self.forget(path)
            self.write(path, raw.value, raw.place)
        if BAD in parts.values():
            return BAD
        return list(parts.values()) if node.is_list else parts

    def _names_of_a_kind(self, node: Node, spec: FieldSpec, value: Any, path: tuple[str, ...]) -> Any:
        """A list of texts called `trackers` names registered trackers: a wrong name is told now, not at step 0."""
        kind = spec.name.removesuffix("s")
        if spec.type != "list[str]" or kind not in registry.homes or kind == spec.name or not node.is_list:
            return value
        for index, (item, word) in enumerate(zip(node.value, value, strict=True)):
            try:
                registry.entry(kind, word)
            except ConfigError as error:
                self.problems.add(item.place, ".".join((*path, str(index))), str(error))
        return value

    def _free_names(self, items: dict[str, Node], spec: FieldSpec, path: tuple[str, ...]) -> None:
        kind = parse_type(spec.type)
        if kind.name != "dict" or not kind.args or kind.args[0].name != "literal":
            return
        for key, child in items.items():
            if key not in kind.args[0].args:
                self.problems.add(child.place, ".".join((*path, key)), self._unknown(key, kind.args[0].args, path))

    def _resolved(self, node: Node, path: tuple[str, ...]) -> Any:
        """The node with its own and all inner interpolations replaced, or BAD."""
        if node.is_map or node.is_list:
            items = node.value if node.is_map else {str(i): child for i, child in enumerate(node.value)}
            inner = {key: self._resolved(child, (*path, key)) for key, child in items.items()}
            if all(inner[key] is child for key, child in items.items()):
                return node
            if BAD in inner.values():
                return BAD
            return Node(inner if node.is_map else list(inner.values()), node.place)
        if node.interpolated:
            try:
                return self.resolver.resolve(node, path)
            except InterpolationProblem as problem:
                self.problems.add(node.place, ".".join(path), f"{node.text} cannot be resolved: {problem}")
                return BAD
        return node

    def _placeholder(self, node: Node, path: tuple[str, ...]) -> bool:
        if node.is_map or node.is_list:
            items = node.value.items() if node.is_map else enumerate(node.value)
            found = [self._placeholder(child, (*path, str(key))) for key, child in items]  # tell every one
            return any(found)
        if not isinstance(node.value, str):
            return False
        if not PLACEHOLDER.match(node.value):
            return False
        self.problems.add(node.place, ".".join(path), f"{node.value!r} is a placeholder; write your own value")
        return True

    def _write_tree(self, node: Node, value: Any, path: tuple[str, ...]) -> None:
        """Into the dump, a mapping key by key; what comes from the environment stays as it was written."""
        if not node.is_map and self.resolver.secret(node):
            self.write(path, to_plain(node), node.place)
        elif isinstance(value, dict) and value and node.is_map:
            for (key, child), item in zip(node.value.items(), value.values(), strict=True):
                self._write_tree(child, item, (*path, key))
        else:
            self.write(path, list(value) if isinstance(value, tuple) else value, node.place)

    def forget(self, path: tuple[str, ...]) -> None:
        """Take a node out of the dump and out of the origins of values."""
        for known in [k for k in self.dump if k[: len(path)] == path]:
            del self.dump[known]
            self.sources.pop(".".join(known), None)

    def _unknown(self, key: str, known: Iterable[str], path: tuple[str, ...]) -> str:
        here = ".".join(path)
        names = list(dict.fromkeys([*map(str, known), *self.keys.get(here, ())]))  # ours, and those of the reference
        familiar = FAMILIAR.get(key)
        if familiar in names:
            return f"unknown key {key!r}; here it is called {familiar!r}"
        homes = self._homes(key, here)
        if homes:
            return f"wrong nesting: {key!r} belongs under " + " or ".join(f"`{home}`" for home in homes)
        close = nearest(key, names)
        if close:
            return f"unknown key {key!r}; did you mean " + " or ".join(repr(c) for c in close) + "?"
        homes = self._homes(familiar, here) if familiar else []
        if homes:
            return f"unknown key {key!r}; it is called {familiar!r} under `{homes[0]}`"
        told = names if len(names) <= MANY else [*names[:MANY], "... (docs/config-reference.md lists all)"]
        return f"unknown key {key!r}; known here: {', '.join(told) or 'nothing'}"

    def _homes(self, key: str, here: str) -> list[str]:
        """The nodes that take this key: first those above or below `here`, then the shallowest; two at most."""
        homes = [home for home, keys in self.keys.items() if key in keys and home != here]
        related = [h for h in homes if not here or h.startswith(f"{here}.") or here.startswith(f"{h}.") or not h]
        chosen = sorted(related or homes, key=lambda h: (h.count("."), h))[:2]
        return [home or "the top of the file" for home in chosen]

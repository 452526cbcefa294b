"""The acts of loading a configuration: lay the presets, fill in the defaults, check, and say everything at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common import like, nodes, presets
from minigpt4o.common.check import BAD, Checker
from minigpt4o.common.dialect_tree import Translation
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.fill import Filler
from minigpt4o.common.interpolate import InterpolationProblem, Resolver
from minigpt4o.common.layers import lay
from minigpt4o.common.nodes import DatasetCommon, DatasetSpec
from minigpt4o.common.problems import Place, Problems
from minigpt4o.common.registry import Part, registry
from minigpt4o.common.schema import Misfit, fit, parse_type
from minigpt4o.common.settings import Settings
from minigpt4o.common.source import FieldSpec, fields_of_class, nearest
from minigpt4o.common.yaml_places import Node, from_plain, read_yaml

TOP = ("plugins", "profile", "model", "datasets", "run")
PROFILE = "Literal['default', 'compat']"
DEFAULT_RUNNER = "runner_base"
_DEFAULT = Place("default", "default")


def common_dataset_fields() -> tuple[FieldSpec, ...]:
    """The keys every data set takes."""
    return fields_of_class(Path(nodes.__file__), DatasetCommon.__name__)


class Loading:
    """One load: the acts in order, sharing the tree and the collector."""

    def __init__(self, root: Node, problems: Problems, path: str, needs: list[str]) -> None:
        self.root, self.problems, self.path, self.needs = root, problems, path, needs
        self.lost: set[str] = set()  # dotted nodes whose class is unknown: told once, not looked into
        self.resolver = Resolver(root)

    def settings(self) -> Settings:
        self._shape()
        self.translation = Translation(self.root, self.problems)
        self.translation.first()
        self._lay_presets()
        self.resolver = Resolver(self.root)
        profile = self._profile()
        filler = Filler(self.resolver, profile)
        self._fill(filler)
        self.checker = Checker(Resolver(self.root), self.problems, filler.keys, profile)
        self._unknown_tops()
        plugins = self._plugins()
        model = self._choice("model", "model", "arch", ["arch", "model_type"])
        datasets = {name: self._dataset(name) for name in self.root.value["datasets"].value}
        run = self._choice("run", "runner", "runner", ["runner"])
        self._need_data(run)
        self.problems.refuse()
        report = self.translation.report
        report.say(self.path)
        return Settings(model, datasets, run, plugins, self._tree(), self.checker.sources, self.path, report.lines())

    def _shape(self) -> None:
        """Every top node is a mapping afterwards; missing ones are empty."""
        for key in ("model", "datasets", "run"):
            node = self.root.value.get(key)
            missing = node is None or node.value is None
            if missing and key in self.needs:
                self.problems.add(Place("file", self.path, 1, 1), "", f"the top key `{key}:` is missing")
            elif node is not None and not missing and not node.is_map:
                self.problems.add(node.place, key, "a mapping is wanted here")
                missing = True
            if missing:
                place = node.place if node is not None else Place("file", self.path, 1, 1)
                self.root.value[key] = Node({}, place)
                if key != "datasets":
                    self.lost.add(key)
        sets = self.root.value["datasets"]
        for name, node in list(sets.value.items()):
            if node.value is None:  # `toy_caption_en:` alone means: as its preset says
                sets.value[name] = Node({}, node.place)
            elif not node.is_map:
                self.problems.add(node.place, f"datasets.{name}", "a mapping is wanted here")
                self.lost.add(f"datasets.{name}")

    def _word(self, holder: Node, key: str, path: str) -> str:
        """A selector such as `arch`, resolved; empty if missing or no text (the check tells)."""
        node = holder.value.get(key)
        if node is not None and node.interpolated:
            try:
                node = self.resolver.resolve(node, (*path.split("."), key))
            except InterpolationProblem:
                return ""
        return node.value if node is not None and isinstance(node.value, str) else ""

    def _lay_presets(self) -> None:
        model = self.root.value["model"]
        arch, model_type = self._word(model, "arch", "model"), self._word(model, "model_type", "model")
        found = bool(model_type) and arch in registry.names("model")
        preset = self._model_preset(model, arch, model_type) if found else None
        self.translation.model(preset)
        self.root.value["model"] = lay(preset, model)
        sets = self.root.value["datasets"]
        for name, node in sets.value.items():
            if f"datasets.{name}" in self.lost:
                continue
            file = presets.find("datasets", name, registry.plugins)
            if like.LIKE in node.value:
                sets.value[name] = like.resolved(node, self._set_preset, self.problems, registry.plugins)
            elif file is not None:
                preset = self._set_preset(file, name)
                if preset is not None:
                    preset = like.resolved(preset, self._set_preset, self.problems, registry.plugins, (name,))
                sets.value[name] = lay(preset, node)
            elif "builder" not in node.value:
                self._unknown_dataset(name, node)

    def _set_preset(self, file: Path, name: str) -> Node | None:
        return self._preset(file, ("datasets", name))

    def _model_preset(self, model: Node, arch: str, model_type: str) -> Node | None:
        aliases = [arch, *(n for n in registry.entry("model", arch).names if n != arch)]
        for alias in aliases:
            file = presets.find("models", f"{alias}_{model_type}", registry.plugins)
            if file is not None:
                return self._preset(file, ("model",))
        known = presets.names("models", registry.plugins)
        types = sorted({n.removeprefix(f"{a}_") for a in aliases for n in known if n.startswith(f"{a}_")})
        close = nearest(model_type, types)
        mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(types) or 'none'}; or leave it out"
        what = f"unknown model_type {model_type!r} of {arch!r}; {mend}"
        self.problems.add(model.value["model_type"].place, "model.model_type", what)
        return None

    def _preset(self, file: Path, path: tuple[str, ...]) -> Node | None:
        node = read_yaml(file, "preset", self.problems)
        for key in path:
            if node is None:
                return None
            for other, child in node.value.items():
                if other != key:
                    what = f"a preset file holds only `{'.'.join(path)}`, not {other!r}"
                    self.problems.add(child.place, "", what)
            below = node.value.get(key)
            if below is None or not below.is_map:
                self.problems.add(node.place, "", f"this preset file must hold a mapping `{'.'.join(path)}`")
                return None
            node = below
        return node

    def _unknown_dataset(self, name: str, node: Node) -> None:
        known = presets.names("datasets", registry.plugins)
        close = nearest(name, known)
        mend = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(known) or 'none'}"
        what = f"unknown data set {name!r}: there is no preset of this name, and no `builder:` is given; {mend}"
        self.problems.add(node.place, f"datasets.{name}", what)
        self.lost.add(f"datasets.{name}")

    def _fill(self, filler: Filler) -> None:
        filler.keys[""] = list(TOP)
        run = self.root.value["run"]
        if "run" not in self.lost and "runner" not in run.value:
            run.value["runner"] = Node(DEFAULT_RUNNER, _DEFAULT, DEFAULT_RUNNER, quoted=True)
        for key, kind, selector in (("model", "model", "arch"), ("run", "runner", "runner")):
            fields = self._fields(kind, self._word(self.root.value[key], selector, key))
            if fields is not None:
                filler.fill(self.root.value[key], fields[0], (key,), fields[1])
                filler.keys[key] += ["arch", "model_type"] if key == "model" else ["runner"]
                filler.keys[key] += self.translation.words(key)
        common = common_dataset_fields()
        for name, node in self.root.value["datasets"].value.items():
            path = f"datasets.{name}"
            if path in self.lost:
                continue
            fields = self._fields("builder", self._word(node, "builder", path))
            specs = _joined(common, fields[0] if fields else ())
            filler.fill(node, specs, ("datasets", name), fields[1] if fields else "")
            filler.keys[path] += ["builder", like.LIKE, *self.translation.words(path)]

    def _profile(self) -> Node | None:
        """`profile: compat` at the top is the default wherever a class has a profile."""
        node = self.root.value.get("profile")
        try:
            node = self.resolver.resolve(node, ("profile",)) if node is not None and node.interpolated else node
            return node if node is not None and fit(node, parse_type(PROFILE)) else None
        except InterpolationProblem as problem:
            self.problems.add(self.root.value["profile"].place, "profile", str(problem))
        except Misfit as misfit:
            self.problems.add(misfit.found[0][0].place, "profile", misfit.found[0][2])
        return None

    def _fields(self, kind: str, name: str) -> tuple[tuple[FieldSpec, ...], str] | None:
        try:
            entry = registry.entry(kind, name) if name else None
        except ConfigError:
            return None
        return (entry.fields, entry.file) if entry else None

    def _unknown_tops(self) -> None:
        for key, node in self.root.value.items():
            if key not in TOP:
                known = [*TOP, *self.translation.words("")]
                self.problems.add(node.place, key, self.checker._unknown(key, known, ()))

    def _need_data(self, run: Part) -> None:
        """A runner that has a task learns from data, or measures on them."""
        missing = not self.root.value["datasets"].value
        if missing and self._has_task(run.name):
            what = f"the top key `datasets:` is missing or empty; the runner {run.name!r} learns from data"
            self.problems.add(Place("file", self.path, 1, 1), "", what)

    def _has_task(self, runner: str) -> bool:
        found = self._fields("runner", runner)
        return found is not None and any(spec.name == "task" for spec in found[0])

    def _plugins(self) -> list[str]:
        node = self.root.value.get("plugins")
        if node is None or node.value is None:
            node = from_plain([], _DEFAULT)
        value = self.checker.plain(node, parse_type("list[str]"), ("plugins",))
        return [] if value is BAD else value

    def _choice(self, key: str, kind: str, selector: str, also: list[str]) -> Part:
        """The class chosen by a top node, with its checked values."""
        node = self.root.value[key]
        if key in self.lost:
            return Part(kind, "")
        chosen = node.value.get(selector)
        if chosen is None:
            what = f"is required; known: {', '.join(registry.names(kind)) or 'none'}"
            self.problems.add(node.place, f"{key}.{selector}", what)
            return Part(kind, "")
        entry = self.checker.selected(chosen, kind, (key, selector))
        if entry is None:
            return Part(kind, "")
        if "model_type" in also and "model_type" in node.value:
            self.checker.plain(node.value["model_type"], parse_type("str | None"), (key, "model_type"))
        values = self.checker.fields(node, entry.fields, (key,), also)
        return Part(kind, self._word(node, selector, key), values, str(node.place))

    def _dataset(self, name: str) -> DatasetSpec:
        node, path = self.root.value["datasets"].value[name], ("datasets", name)
        if ".".join(path) in self.lost:
            return DatasetSpec(name=name)
        common = common_dataset_fields()
        chosen = node.value.get("builder")
        if chosen is None:
            what = f"is required; known: {', '.join(registry.names('builder')) or 'none'}"
            self.problems.add(node.place, f"{'.'.join(path)}.builder", what)
            return DatasetSpec(name=name)
        entry = self.checker.selected(chosen, "builder", (*path, "builder"))
        if entry is None:
            return DatasetSpec(name=name)
        values = self.checker.fields(node, _joined(common, entry.fields), path, ["builder"])
        self.checker.forget((*path, like.JOINED))  # for people: a word changed there changes no run
        own = {f.name for f in entry.fields}
        shared = {f.name for f in common}
        builder = Part(
            "builder",
            self._word(node, "builder", ".".join(path)),
            {k: v for k, v in values.items() if k in own},
            str(node.place),
        )
        values["max_samples"] = values.get("max_samples") or None  # builders may say 0 for "all"
        return DatasetSpec(name=name, builder=builder, **{k: v for k, v in values.items() if k in shared})

    def _tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"plugins": [], "model": {}, "datasets": {}, "run": {}}
        for path, value in self.checker.dump.items():
            node = tree
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = value
        return tree


def _joined(common: Sequence[FieldSpec], own: Sequence[FieldSpec]) -> list[FieldSpec]:
    """The common keys of a data set and those of its builder; the builder's declaration wins."""
    names = {spec.name for spec in own}
    return [*(spec for spec in common if spec.name not in names), *own]

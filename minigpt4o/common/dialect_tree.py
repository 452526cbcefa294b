"""Walk a whole configuration through the tables of the reference's words: top, run, data sets, model."""

from __future__ import annotations

import contextlib

from minigpt4o.common import dialect_data, dialect_model, dialect_run
from minigpt4o.common.dialect import Report, Rewrite, Word, follow
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.interpolate import Resolver
from minigpt4o.common.problems import Problems
from minigpt4o.common.registry import registry
from minigpt4o.common.yaml_places import Node

BENCHMARKS = "evaluation_datasets"
TOP_WORDS = {
    "preprocess": Word("dict", why="the processors of each data set open its media (datasets.*.vis_processor)"),
    "env": Word("dict", why="nothing is kept in a cache of our own"),
}


class Translation:
    """Our words in place of the reference's, in the tree of the user's file and options."""

    def __init__(self, root: Node, problems: Problems) -> None:
        self.root, self.problems = root, problems
        self.report = Report()
        self.original = Resolver(_copy(root))
        self.moved: dict[str, str] = {}

    def first(self) -> None:
        """All but the model, which needs to know its preset."""
        self._rewrite(self.root, "").words(TOP_WORDS)
        arch = self.root.value["model"].value.get("arch")
        word = arch.value if arch is not None and isinstance(arch.value, str) else ""
        if arch is not None and word in dialect_model.OLD_ARCHS:
            word = self._old_arch(arch)
        self.foreign = word in dialect_model.ARCHS
        sets = self.root.value["datasets"].value
        for name, node in sets.items():
            if node.is_map:
                self._data_set(name, node)
        if BENCHMARKS in self.root.value:
            node = self.root.value.pop(BENCHMARKS)
            dialect_data.benchmarks(self._rewrite(node, BENCHMARKS))
        run = self.root.value["run"]
        rewrite = self._rewrite(run, "run", "runner", run.value.get("runner"))
        rewrite.words(dialect_run.WORDS)
        dialect_run.of_evaluation(rewrite)
        if self.foreign:
            profiles = [self.root.value.get("profile"), run.value.get("profile")]
            if not dialect_run.evaluates(rewrite):
                dialect_data.mix(self.root, self.report)
            dialect_run.splits(rewrite)
            dialect_run.accumulation(rewrite, any(p is not None and p.value == "compat" for p in profiles))

    def model(self, preset: Node | None) -> None:
        """The model node, over its preset; then every `${...}` follows what moved."""
        node = self.root.value["model"]
        if self.foreign:
            rewrite = self._rewrite(node, "model", "model", node.value["arch"])
            rewrite.base = preset
            rewrite.words(dialect_model.WORDS)
        follow(self.root, self.moved)

    def words(self, path: str) -> list[str]:
        """The keys of the reference that a node takes beside ours."""
        if not path:
            return [BENCHMARKS, *TOP_WORDS]
        if path == "run":
            return list(dialect_run.WORDS)
        if path == "model":
            return list(dialect_model.WORDS) if self.foreign else []
        return list(dialect_data.WORDS)

    def _data_set(self, name: str, node: Node) -> None:
        rewrite = self._rewrite(node, f"datasets.{name}", "builder", node.value.get("builder"))
        rewrite.words(dialect_data.WORDS)
        dialect_data.scales(rewrite)
        if self.foreign:
            dialect_data.same_for_eval(rewrite)

    def _old_arch(self, arch: Node) -> str:
        new = dialect_model.OLD_ARCHS[arch.value]
        self.report.add(arch.place, "model.arch", f"{arch.value} is called {new} now")
        self.root.value["model"].value["arch"] = Node(new, arch.place, new, quoted=True)
        return new

    def _rewrite(self, node: Node, path: str, kind: str = "", chosen: Node | None = None) -> Rewrite:
        ours: frozenset[str] = frozenset()
        if chosen is not None and isinstance(chosen.value, str):
            with contextlib.suppress(ConfigError):  # told by the check
                ours = frozenset(spec.name for spec in registry.entry(kind, chosen.value).fields)
        return Rewrite(self.root, node, path, self.problems, self.report, self.original, self.moved, has=ours)


def _copy(node: Node) -> Node:
    """The mappings of a tree anew, so that keys can leave the tree and stay here."""
    return Node({key: _copy(child) for key, child in node.value.items()}, node.place) if node.is_map else node

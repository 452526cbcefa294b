"""A checked configuration, as the rest of the program sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.registry import Part
from minigpt4o.common.source import nearest


@dataclass(frozen=True)
class Settings:
    """A checked configuration."""

    model: Part
    datasets: dict[str, DatasetSpec]
    run: Part
    plugins: list[str] = field(default_factory=list)
    tree: dict[str, Any] = field(default_factory=dict)  # resolved, all defaults filled in, nothing from the environment
    sources: dict[str, str] = field(default_factory=dict)  # dotted key -> default | preset FILE:LINE | FILE:LINE | flag
    path: str = ""  # the YAML file
    notes: list[str] = field(default_factory=list)  # keys of the reference that have no effect here, or another one

    def keep(self, names: Sequence[str]) -> Settings:
        """The same with only these data sets."""
        names = [own for name in names for own in self._named(name)]
        datasets = {name: self.datasets[name] for name in names}
        tree = {**self.tree, "datasets": {name: self.tree["datasets"][name] for name in names}}
        sources = {
            key: origin
            for key, origin in self.sources.items()
            if not key.startswith("datasets.") or key.split(".")[1] in names
        }
        return dataclasses.replace(self, datasets=datasets, tree=tree, sources=sources)

    def _named(self, name: str) -> list[str]:
        """The data sets a name of `--dataset` means: that one, or a benchmark as the reference names it, all splits."""
        if name in self.datasets:
            return [name]
        benchmark = "benchmark_" + name.replace("+", "p")
        found = [own for own in self.datasets if own == benchmark or own.startswith(f"{benchmark}_")]
        if not found:
            close = nearest(name, [*self.datasets, *(own.removeprefix("benchmark_") for own in self.datasets)])
            mend = f"did you mean {close[0]!r}?" if close else f"the file has: {', '.join(self.datasets) or 'none'}"
            raise ConfigError(f"--dataset {name}: {self.path} has no data set {name!r}; {mend}")
        return found

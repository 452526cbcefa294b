"""A name in YAML -> a registered class -> its nested `Config`: found by reading source, imported only when built."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import Entry, entry_of_class, nearest, read_entries

# Where the classes of a kind live. Any module below the home is found; no list of modules is kept.
HOMES: dict[str, str | tuple[str, ...]] = {
    "model": "minigpt4o.models",
    "encoder": "minigpt4o.models.encoders",
    "bridge": "minigpt4o.models.bridges",
    "llm": "minigpt4o.models.llms",
    "builder": "minigpt4o.datasets.builders",
    "processor": ("minigpt4o.processors", "minigpt4o.models.native_sound"),  # that one needs a model's front end
    "task": "minigpt4o.tasks",
    "runner": "minigpt4o.runners",
    "engine": "minigpt4o.runners",
    "lr_scheduler": "minigpt4o.runners",
    "tracker": "minigpt4o.runners",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A registered class chosen by name, with the values the user gave; its own `Config` holds the defaults."""

    kind: str
    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""  # file:line of the node, for errors

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


def part(kind: str, default: Any = dataclasses.MISSING, many: bool = False, doc: str = "") -> Any:
    """A `Config` field that is itself a registered part: `bridge: Part = part("bridge", default="linear")`.

    With `many=True` the field is a mapping from a free name to a part (`encoders: dict[str, Part]`).
    """
    metadata = {"kind": kind, "many": many, "doc": doc}
    if many:
        return field(default_factory=dict, metadata=metadata)
    if default is dataclasses.MISSING:
        return field(metadata=metadata)
    if default is None:
        return field(default=None, metadata=metadata)
    return field(default_factory=lambda: Part(kind, default), metadata=metadata)


class Registry:
    """All registered classes by (kind, name)."""

    def __init__(self, homes: Mapping[str, str | tuple[str, ...]]) -> None:
        self.homes = dict(homes)
        self.plugins: list[str] = []
        self._entries: dict[str, dict[str, Entry]] = {}  # kind -> name -> entry, from source
        self._classes: dict[tuple[str, str], Any] = {}  # filled by the decorator at import

    def register(self, kind: str, *names: str) -> Callable[[T], T]:
        """Decorator: make a class known as `names` of `kind`. The first name is the canonical one."""
        if kind not in self.homes:
            raise ConfigError(f"unknown kind {kind!r}; kinds: {', '.join(sorted(self.homes))}")

        def decorate(cls: T) -> T:
            for name in names:
                known = self._classes.get((kind, name))
                if known is not None and _place(known) != _place(cls):
                    raise ConfigError(f"{kind} {name!r} is registered twice: by {_place(known)} and by {_place(cls)}")
                self._classes[kind, name] = cls
            return cls

        return decorate

    # LAVIS's spelling of the same decorator.
    def register_model(self, name: str) -> Callable[[T], T]:
        return self.register("model", name)

    def register_builder(self, name: str) -> Callable[[T], T]:
        return self.register("builder", name)

    def register_processor(self, name: str) -> Callable[[T], T]:
        return self.register("processor", name)

    def register_task(self, name: str) -> Callable[[T], T]:
        return self.register("task", name)

    def register_runner(self, name: str) -> Callable[[T], T]:
        return self.register("runner", name)

    def register_lr_scheduler(self, name: str) -> Callable[[T], T]:
        return self.register("lr_scheduler", name)

    def add_plugin(self, module: str) -> None:
        """Look for registered classes in an outside module or package too (`plugins:` in a YAML)."""
        if module in self.plugins:
            return
        if _find_spec(module) is None:
            raise ConfigError(f"plugins: module {module!r} cannot be found; is its folder on PYTHONPATH?")
        self.plugins.append(module)
        self._entries.clear()

    def names(self, kind: str) -> list[str]:
        """All known names of a kind, sorted. Imports nothing."""
        dynamic = [name for (k, name) in self._classes if k == kind]
        return sorted({*self._scan(kind), *dynamic})

    def entry(self, kind: str, name: str) -> Entry:
        """What is known of a class without importing it. Raises ConfigError with the nearest known names."""
        entries = self._scan(kind)
        if name in entries:
            return entries[name]
        if (kind, name) in self._classes:
            return entry_of_class(kind, name, self._classes[kind, name])
        known = self.names(kind)
        hint = nearest(name, known)
        mend = f"did you mean {' or '.join(repr(h) for h in hint)}?" if hint else f"known: {', '.join(known) or 'none'}"
        raise ConfigError(f"unknown {kind} {name!r}; {mend}")

    def get(self, kind: str, name: str) -> Any:
        """The class itself; imports the one module that holds it."""
        if (kind, name) not in self._classes:
            entry = self.entry(kind, name)
            importlib.import_module(entry.module)
            if (kind, name) not in self._classes:
                raise ConfigError(f"{entry.file}:{entry.line}: {kind} {name!r} was not registered by importing it")
        return self._classes[kind, name]

    def build(self, chosen: Part, **known: Any) -> Any:
        """An instance of the chosen class: its `Config` from the user's values, the rest as keywords."""
        cls = self.get(chosen.kind, chosen.name)
        if not hasattr(cls, "Config"):
            return cls(**known)
        return cls(cls.Config(**chosen.values), **known)

    def _scan(self, kind: str) -> dict[str, Entry]:
        if kind not in self.homes:
            raise ConfigError(f"unknown kind {kind!r}; kinds: {', '.join(sorted(self.homes))}")
        if kind not in self._entries:
            found: dict[str, Entry] = {}
            homes = self.homes[kind]
            for home in [*([homes] if isinstance(homes, str) else homes), *self.plugins]:
                for entry in _entries_below(home):
                    if entry.kind != kind:
                        continue
                    for name in entry.names:
                        if name in found and found[name].place != entry.place:
                            raise ConfigError(
                                f"{kind} {name!r} is registered twice: at {found[name].place} and at {entry.place}"
                            )
                        found[name] = entry
            self._entries[kind] = found
        return self._entries[kind]


def _place(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _find_spec(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None


def _entries_below(home: str) -> list[Entry]:
    """Entries of a module, or of every module of a package, in a stable order."""
    spec = _find_spec(home)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return read_entries(origin, home)
    found: list[Entry] = []
    for file in sorted(origin.parent.rglob("*.py")):
        relative = file.relative_to(origin.parent).with_suffix("")
        parts = [p for p in relative.parts if p != "__init__"]
        found += read_entries(file, ".".join([home, *parts]))
    return found


registry = Registry(HOMES)

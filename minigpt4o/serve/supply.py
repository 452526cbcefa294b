"""Find every weight file a model needs before anything is built, or say in one error what is missing and its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part
from minigpt4o.common.weight_files import ENV, SOURCES, locate, weight_folders

# Keys of a part that name a file or folder, by kind, and what stands there.
_KEYS = {
    "model": {
        "ckpt": "the model's own checkpoint (bridge, adapters)",
        "feature_norm_weights": "the norm after the image encoder",
    },
    "encoder": {"weights": "the encoder"},
    "bridge": {"weights": "the Q-Former"},
    "llm": {"path": "the language model, a Hugging Face folder", "tokenizer": "the tokenizer's folder"},
}


@dataclass
class Missing:
    """A file that was not found."""

    keys: list[str]  # that name it
    names: tuple[str, ...]  # any of these would do
    what: str
    source: str

    def __str__(self) -> str:
        source = f"; from {self.source}" if self.source else ""
        return f"  {' and '.join(self.keys)}: {' or '.join(self.names)} ({self.what}{source})"


def supplied(model: Part, weights: str | Path | None = None, checkpoints: Sequence[str] = (), source: str = "") -> Part:
    """The model's node with every weight file as a path that exists.

    `weights` is a folder looked in first; then come the path itself, the folders of MINIGPT4O_WEIGHTS and torch.hub's
    cache. `checkpoints` are names for `ckpt`, any of which will do. Raises ConfigError that names all missing files.
    """
    folder = _folder(weights)
    search = _Search(folder, {"model.ckpt": (tuple(checkpoints), source)} if checkpoints else {})
    found = search.fill(model, "model")
    if search.missing:
        looked = [str(p) for p in ([folder] if folder else []) + weight_folders()]
        raise ConfigError(
            f"{len(search.missing)} weight file(s) of this model are not on this machine\n"
            + "\n".join(map(str, search.missing))
            + f"\nlooked in: {', '.join(looked)}\n"
            f"put them into one folder and give it as weights=..., or set the environment variable {ENV} to it; or "
            'give the path of one by its key, for example options=["model.llm.path=/my/folder"]'
        )
    return found


def _folder(weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    folder = Path(weights).expanduser()
    if not folder.is_dir():
        is_file = " is a file;" if folder.is_file() else " does not exist;"
        raise ConfigError(f"weights: {folder}{is_file} give the folder that holds the weight files")
    return folder


@dataclass
class _Search:
    """One look through a model's parts."""

    folder: Path | None  # looked in first
    names: Mapping[str, tuple[tuple[str, ...], str]]  # dotted key -> names that would do in place of its value, source
    missing: list[Missing] = field(default_factory=list)

    def fill(self, part: Part, path: str) -> Part:
        """The part, and all parts below it, with paths that exist; what is not found goes to `missing`."""
        values: dict[str, Any] = dict(part.values)
        for key, what in _KEYS.get(part.kind, {}).items():
            place = self._look(part.kind, f"{path}.{key}", values.get(key), what)
            if place is not None:
                values[key] = place
        for key, value in values.items():
            if isinstance(value, Part):
                values[key] = self.fill(value, f"{path}.{key}")
            elif isinstance(value, Mapping):
                values[key] = {
                    name: self.fill(child, f"{path}.{key}.{name}") if isinstance(child, Part) else child
                    for name, child in value.items()
                }
        return replace(part, values=values)

    def _look(self, kind: str, key: str, value: Any, what: str) -> str | None:
        words, source = self.names.get(key, ((), ""))
        words = words or tuple(word for word in [value] if isinstance(word, str) and word)
        place = next((p for word in words if (p := _find(word, self.folder)) is not None), None)
        if place is None and words and not _is_hub_name(kind, words[0]):
            self._miss(Missing([key], words, what, source or _source(words[0])))
        return None if place is None else str(place)

    def _miss(self, lost: Missing) -> None:
        """Note it; two keys that name one file are one entry."""
        for known in self.missing:
            if known.names == lost.names:
                known.keys += lost.keys
                known.what += f", {lost.what}"
                return
        self.missing.append(lost)


def _find(word: str, folder: Path | None) -> Path | None:
    name = word.split("?")[0].rstrip("/").rpartition("/")[2] if "://" in word else word
    if folder is not None and not Path(name).is_absolute():
        for inside in (folder / name, folder / Path(name).name):
            if inside.exists():
                return inside
    return locate(word)


def _is_hub_name(kind: str, word: str) -> bool:
    """`org/name`, and no folder `org` here: transformers looks for it itself."""
    first, _, rest = word.partition("/")
    return kind == "llm" and bool(rest) and "/" not in rest and first not in (".", "~", "") and not Path(first).exists()


def _source(word: str) -> str:
    return word if "://" in word else SOURCES.get(Path(word).name, "")

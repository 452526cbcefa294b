"""Find the YAML presets behind `model_type` and data set names: shipped ones, a plugin's, and the user's own."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

ENV = "MINIGPT4O_CONFIG_PATH"  # folders (separated like PATH) that hold models/*.yaml and datasets/*.yaml
SHIPPED = Path(__file__).resolve().parent.parent / "configs"


def folders(group: Literal["models", "datasets"], plugins: Sequence[str] = ()) -> list[Path]:
    """Where presets of a group are looked for, first found wins: the user's folders, plugins, the shipped ones."""
    roots: list[Path] = []
    for word in os.environ.get(ENV, "").split(os.pathsep):
        if word:
            roots += [Path(word), Path(word) / "configs"]
    for plugin in plugins:
        spec = importlib.util.find_spec(plugin)
        if spec is not None and spec.origin is not None:
            roots.append(Path(spec.origin).parent / "configs")
    return [root / group for root in [*roots, SHIPPED] if (root / group).is_dir()]


def names(group: Literal["models", "datasets"], plugins: Sequence[str] = ()) -> list[str]:
    """All preset names of a group, sorted."""
    return sorted({file.stem for folder in folders(group, plugins) for file in folder.glob("*.yaml")})


def find(group: Literal["models", "datasets"], name: str, plugins: Sequence[str] = ()) -> Path | None:
    """The file of a preset, or None."""
    if not name or "/" in name or name.startswith("."):
        return None
    for folder in folders(group, plugins):
        file = folder / f"{name}.yaml"
        if file.is_file():
            return file
    return None

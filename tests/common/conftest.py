"""Tiny registered classes for the configuration tests: a plugin module that imports nothing heavy."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigpt4o.common.registry import registry

sys.path.insert(0, str(Path(__file__).parent))  # for reference_files.py

PLUGIN = '''
"""Classes for tests."""
from dataclasses import dataclass, field
from typing import Any, Literal
from minigpt4o.common.registry import Part, part, registry

@registry.register("encoder", "small_eye")
class Eye:
    """Sees."""
    @dataclass
    class Config:
        image_size: int = 64  # edge
        patch: int = 8  # edge of a patch

@registry.register("encoder", "other_eye")
class OtherEye:
    """Sees differently."""
    @dataclass
    class Config:
        width: int = 32  # features

@registry.register("bridge", "plank")
class Plank:
    """Crosses."""
    @dataclass
    class Config:
        bias: bool = True  # adds a vector

@registry.register("model", "joined", "joined_again")
class Joined:
    """Looks and speaks."""
    @dataclass
    class Config:
        path: str  # weights
        encoders: dict[str, Part] = part("encoder", many=True, doc="eyes")
        bridge: Part = part("bridge", default="plank", doc="between")
        max_txt_len: int = 32  # tokens
        train: list[str] = field(default_factory=lambda: ["bridge"])  # what learns
        size: tuple[int, int] = (8, 8)  # height and width
        ckpt: str | None = None  # weights to lay over
        precision: Literal["fp32", "bf16"] = "fp32"  # numbers
    def __init__(self, config: Config) -> None:
        self.config = config

@registry.register("builder", "lines")
class Lines:
    """Rows of a text file."""
    @dataclass
    class Config:
        annotations: dict[str, str]  # split -> file
        media_root: str = ""  # folder

@registry.register("processor", "crop")
class Crop:
    """Cuts."""
    @dataclass
    class Config:
        image_size: int = 64  # edge

@registry.register("task", "learn")
class Learn:
    """Learns."""

@registry.register("runner", "jog")
class Jog:
    """Trains a little."""
    @dataclass
    class Config:
        task: Part = part("task", default="learn", doc="what")
        init_lr: float = 1e-3  # highest rate
        weight_decay: float = 0.0  # pull to zero
        max_epoch: int = 1  # rounds
        max_steps: int | None = None  # steps
        amp: bool = False  # half numbers
        seed: int = 1  # of all draws
        output_dir: str = "output"  # where
        device: str = "cpu"  # where it runs
        options: dict[str, Any] = field(default_factory=dict)  # passed on
        lr_multipliers: dict[str, float] = field(default_factory=dict)  # prefix -> factor
        trackers: list[str] = field(default_factory=list)  # curves
    def __init__(self, config: Config, *, settings: Any) -> None:
        self.config, self.settings = config, settings
    def run(self) -> None:
        import sys
        sys.stdout.write(f"ran {self.config.max_epoch} epoch(s)\\n")
'''

GOOD = """\
plugins: [small_plugin]
model:
  arch: joined
  path: weights
  encoders: {image: {name: small_eye, image_size: 32}}
datasets:
  pictures:
    builder: lines
    annotations: {train: a.txt}
    vis_processor: {train: crop, eval: {name: crop, image_size: 32}}
run:
  runner: jog
  init_lr: 3e-4
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the plugin `small_plugin`, presets, and a registry that forgets it afterwards."""
    (tmp_path / "small_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(registry.plugins)
    monkeypatch.delitem(sys.modules, "small_plugin", raising=False)
    yield tmp_path
    registry.plugins[:] = before
    registry._entries.clear()
    sys.modules.pop("small_plugin", None)
    for key, cls in list(registry._classes.items()):
        if cls.__module__ == "small_plugin":
            del registry._classes[key]


@pytest.fixture
def write(world: Path) -> Callable[..., str]:
    """Write a YAML and return its path."""

    def write_file(text: str | bytes = GOOD, name: str = "a.yaml") -> str:
        file = world / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return name

    return write_file

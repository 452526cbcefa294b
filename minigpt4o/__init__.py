"""Join frozen vision, audio and language models through a small trained bridge; teach, measure, talk to the result."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> module that holds it; imported when first asked for, so that `import minigpt4o` stays light.
_LAZY = {
    "load_settings": "minigpt4o.common.config",
    "Settings": "minigpt4o.common.config",
    "registry": "minigpt4o.common.registry",
    "Part": "minigpt4o.common.registry",
    "part": "minigpt4o.common.registry",
    "Minigpt4oError": "minigpt4o.common.errors",
}

__all__ = ["Minigpt4oError", "Part", "Settings", "__version__", "load_settings", "part", "registry"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})

"""Where everything lies that was made from data and can be made again: indexes, fetched shards."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """`MINIGPT4O_CACHE` or ~/.cache/minigpt4o, and the named folders below it. Nothing is created."""
    root = os.environ.get("MINIGPT4O_CACHE") or "~/.cache/minigpt4o"
    return Path(root).expanduser().joinpath(*parts)

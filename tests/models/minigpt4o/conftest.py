"""Lets the tests of this folder import their tiny parts by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for tiny_minigpt4o.py

"""Fixtures for the tests of the runner; what they are made of stands in tiny_world.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny_world import make_world, tiny_settings


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def make_settings(world: Path, tmp_path: Path) -> Callable[..., Any]:
    """Settings of a run of a few steps below `tmp_path`."""
    return lambda **values: tiny_settings(world, tmp_path / "output", **values)

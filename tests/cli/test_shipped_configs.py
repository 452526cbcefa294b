"""Every YAML that is shipped passes the check, and no slip in one crashes it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from minigpt4o.common.config import load_settings
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.problems import ConfigProblems

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(file for folder in ("train_configs", "eval_configs") for file in (ROOT / folder).rglob("*.yaml"))
SLIPS = 10  # of each file


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_shipped_file_is_valid_but_for_what_the_user_must_fill_in(file: Path) -> None:
    try:
        settings = load_settings(file)
        assert settings.model.name
    except ConfigProblems as error:
        left = [str(problem) for problem in error.problems if "placeholder" not in problem.what]
        assert not left, "\n".join(left)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_slip_in_a_shipped_file_is_valid_or_refused(file: Path, tmp_path: Path) -> None:
    plain = file.read_text(encoding="utf-8")
    for number in range(SLIPS):
        tree = yaml.safe_load(plain)
        _slip(tree, random.Random(f"{file.name}/{number}"))
        slipped = tmp_path / "slipped.yaml"
        slipped.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
        try:
            load_settings(slipped)
        except ConfigError as error:
            assert str(slipped) in str(error) or "slipped.yaml" in str(error)  # noqa: PT017 - both ends are fine


def _slip(tree: dict[str, Any], rng: random.Random) -> None:
    """Delete, rename or retype one key."""
    nodes = [tree]
    for node in nodes:
        nodes += [value for value in node.values() if isinstance(value, dict) and value]
    node = rng.choice(nodes)
    key = rng.choice(list(node))
    act = rng.choice(["delete", "rename", "retype"])
    value = node.pop(key)
    if act == "rename":
        node[f"{key}s"] = value
    elif act == "retype":
        node[key] = rng.choice([None, True, 3, 1.5, "word", [], [1], {}, {"a": 1}, "${x}", {"name": 3}])

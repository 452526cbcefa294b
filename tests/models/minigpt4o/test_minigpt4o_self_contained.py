"""Minigpt4o is code of its own: no module of it takes anything from another model of transformers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[3] / "minigpt4o" / "models" / "minigpt4o"
FILES = sorted(HOME.rglob("*.py"))
# The Auto classes are no model; `auto.py` registers with them.
ALLOWED = "transformers.models.auto"


def foreign(source: str) -> Iterator[str]:
    """What of another model's code a module imports, in whatever way, and names that only such a model has."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # importlib.import_module("transformers.models...")
        for name in names:
            model = name.startswith("transformers.models") and not name.startswith(ALLOWED)
            if model or (name.startswith("transformers.") and "gemma" in name.lower()):
                yield name


def test_there_is_something_to_look_at() -> None:
    assert {"modeling_text.py", "modeling_audio.py", "modeling_vision.py", "modeling_minigpt4o.py"} <= {
        file.name for file in FILES
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_module_takes_from_another_model(file: Path) -> None:
    assert not list(foreign(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "statement",
    [
        "from transformers.models.gemma3n.modeling_gemma3n import Gemma3nRMSNorm",
        "from transformers.models import llama",
        "import transformers.models.siglip.modeling_siglip as s",
        "from transformers import Gemma3nConfig",
        "importlib.import_module('transformers.models.gemma3n')",
        "def f():\n    from transformers.models.timm_wrapper import TimmWrapperModel",
    ],
)
def test_the_check_sees_each_way(statement: str) -> None:
    assert list(foreign(statement))


def test_base_classes_and_the_auto_classes_are_allowed() -> None:
    assert not list(foreign("from transformers.modeling_utils import PreTrainedModel\nx = 'transformers.models.auto'"))

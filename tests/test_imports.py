"""Starting is light: neither the package nor the configuration check loads a framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "transformers", "timm", "deepspeed", "wandb", "gradio", "peft", "torchvision", "torchaudio", "numpy"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "statement",
    [
        "import minigpt4o; minigpt4o.registry; minigpt4o.load_settings",
        "from minigpt4o.cli import main; main(['list', 'model'])",
        "from minigpt4o.cli import main; main(['docs-config', '--check', '--out', 'no/such/page.md'])",
    ],
)
def test_nothing_heavy_is_loaded_by(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit(','.join(sorted(set({HEAVY}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    loaded = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    assert done.returncode in (0, 1)
    assert not [word for word in HEAVY if loaded and word in loaded[-1].split(",")], done.stderr


def test_lazy_exports_are_what_they_say() -> None:
    import minigpt4o
    from minigpt4o.common.registry import registry

    assert minigpt4o.registry is registry
    assert set(minigpt4o.__all__) <= set(dir(minigpt4o))
    assert all(getattr(minigpt4o, name) is not None for name in minigpt4o.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = minigpt4o.nothing

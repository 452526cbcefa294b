"""The code of docs/minigpt4o.md runs as it stands, with tiny weights in place of real ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from transformers import AutoTokenizer

from minigpt4o import (
    Minigpt4oAudioFeatureExtractor,
    Minigpt4oConfig,
    Minigpt4oForConditionalGeneration,
    Minigpt4oProcessor,
)
from minigpt4o.models.minigpt4o.image_processing_minigpt4o import Minigpt4oImageProcessor
from minigpt4o.models.minigpt4o.presets import PRESETS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "minigpt4o.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parent / "tokenizer")
    config = Minigpt4oConfig.preset("tiny", len(tokenizer), len(tokenizer) - tokenizer.eoa_token_id)
    Minigpt4oForConditionalGeneration(config).save_pretrained(tmp_path / "my-minigpt4o")
    processor = Minigpt4oProcessor(Minigpt4oAudioFeatureExtractor(), Minigpt4oImageProcessor(), tokenizer)
    processor.save_pretrained(tmp_path / "my-minigpt4o")
    PIL.Image.fromarray(np.full((60, 80, 3), 90, dtype=np.uint8)).save(tmp_path / "cat.jpeg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_blocks_run_one_after_the_other(desk: Path) -> None:
    assert len(BLOCKS) >= 5
    known: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, known)  # noqa: S102 (the page's own code)
    assert known["told"][0]["generated_text"]  # type: ignore[index]
    assert "What is shown in this image?" in PAGE
    assert (desk / "my-export" / "modeling_minigpt4o.py").is_file()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_table_of_presets_is_right(preset: str) -> None:
    import torch

    with torch.device("meta"):
        model = Minigpt4oForConditionalGeneration(Minigpt4oConfig.preset(preset))
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{preset}`")]
    text = model.model.language_model
    tables = text.embed_tokens.weight.numel(), text.embed_tokens_per_layer.weight.numel()
    towers = model.model.vision_tower.num_parameters(), model.model.audio_tower.num_parameters()
    wanted = [model.num_parameters(), text.num_parameters(), *tables, *towers]
    told = [float(number.replace(",", "")) for number in re.findall(r"([\d.,]+) M", row)]
    assert told == pytest.approx([count / 1e6 for count in wanted], rel=0.005, abs=0.05)


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"(?:train_configs|benchmarks)/[\w/.]+\.(?:yaml|py)", PAGE))
    assert named and all((ROOT / name).is_file() for name in named), named


def test_a_script_beside_the_benchmark_finds_the_package() -> None:
    """benchmarks/minigpt4o.py has the package's name and stands first on the path of such a script."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import minigpt4o; minigpt4o.__version__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "docs", timeout=120)
    assert done.returncode == 0, done.stderr

"""The server of transformers knows Minigpt4o after `make_known`, and only then."""

from __future__ import annotations

import subprocess
import sys

ASK = """
import torch, minigpt4o
from minigpt4o import Minigpt4oConfig, Minigpt4oForConditionalGeneration
from minigpt4o.serve.transformers_cli import make_known
from transformers.cli.serving.model_manager import ModelManager
with torch.device("meta"):
    model = Minigpt4oForConditionalGeneration(Minigpt4oConfig.preset("tiny"))
try:
    ModelManager.get_model_modality(model, processor=None)
except ValueError as error:
    assert "Minigpt4o" in str(error)
else:
    raise SystemExit("transformers knows Minigpt4o by itself: make_known can go")
make_known()
assert ModelManager.get_model_modality(model, processor=None).value == "MULTIMODAL"
"""


def test_the_server_takes_text_pictures_and_sounds_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_command_line_is_that_of_transformers() -> None:
    words = [sys.executable, "-m", "minigpt4o.serve.transformers_cli", "version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    import transformers

    assert done.stdout.strip() == transformers.__version__, done.stderr[-2000:]

"""A program that answered ends as it should, whoever still holds the engine and whatever it is doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from minigpt4o.common.config import load_settings
from minigpt4o.serve.inference import load_chat
sys.setswitchinterval(1e-4)
chat = load_chat(load_settings(sys.argv[1], ["run.max_new_tokens=200", "run.min_new_tokens=200"]))
pieces = chat.ask("what is there?")
next(pieces)
if sys.argv[2] == "dropped":
    del chat, pieces
"""


@pytest.mark.parametrize("engine", ["held", "dropped"])
def test_a_program_ends_well_amid_an_answer(demo_yaml: Path, engine: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(demo_yaml), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]

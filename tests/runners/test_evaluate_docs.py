"""Every command of docs/evaluation.md is run, on an evaluation small enough for a test."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from evaluate_world import evaluated, make_world

from minigpt4o.cli import main

PAGE = Path(__file__).parents[2] / "docs/evaluation.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    words = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [line[line.index("eval.py") + 1 :] for line in words if "eval.py" in line]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_it_does_what_the_page_says(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = make_world(tmp_path, 70, output_dir="output/toy")
    monkeypatch.chdir(tmp_path)
    for name in ("RUN_A", "RUN_B"):
        evaluated(yaml, run_id=name)
    evaluated(yaml, 'run.variants={stage1: "", stage2: ""}', run_id="RUN")
    handed_in = tmp_path / "output/toy/eval/RUN_A/predictions/official/words.json"
    (tmp_path / "predictions.json").write_bytes(handed_in.read_bytes())
    ours = {"eval_configs/toy/all.yaml": str(yaml), "toy_vqa_en": "words", "toy_vqa_en,toy_refer_ja": "words"}
    assert main(["eval", *(ours.get(word, word) for word in words)]) == 0
    if "--out" in words:
        assert (tmp_path / "difference.json").is_file()


def test_there_are_commands_of_every_kind() -> None:
    flat = [word for words in commands() for word in words]
    assert {"--cfg-path", "--limit", "--dry-run", "--from", "--partial", "--compare", "--metric"} <= set(flat)

"""The tiny model of docs/compatibility.md is built, mapped, scored and asked as that page says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_blocks_of_the_page_run_one_after_the_other(tokenizer_folder, tmp_path, monkeypatch):
    (config,), (code,) = blocks("yaml"), blocks("python")
    config = config.replace("/my/weights/Llama-2-7b-chat-hf", str(tokenizer_folder)).replace("$$", "$")
    (tmp_path / "tiny.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    said = runpy.run_path("page.py")
    model = said["model"]
    assert said["features"].shape == (1, 8, 64)
    assert model.llm.model.config.rms_norm_eps == 1e-5
    assert set(said["own"].values()) == set(model.state_dict())
    assert said["loss"].item() > 0
    assert (said["prompts"].input_ids == -1).sum(dim=1).tolist() == [8, 0]
    assert said["prompts"].attention_mask[:, -1].tolist() == [1, 1]

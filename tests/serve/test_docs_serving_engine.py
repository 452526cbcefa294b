"""The code of docs/serving-engine.md runs as it stands."""

import io
import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving-engine.md"


def test_the_code_of_the_page_runs(tiny_model, tiny_encoder, picture, tmp_path, monkeypatch) -> None:
    (tmp_path / "picture.png").write_bytes(picture.data)
    monkeypatch.chdir(tmp_path)
    said, told = io.StringIO(), []
    monkeypatch.setattr(sys, "stdout", said)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names = {"model": tiny_model, "encoder": tiny_encoder, "sys": sys, "print": lambda *words: told.append(words)}
    exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102
    assert names["answering"].text == said.getvalue()
    assert told[0][0] in ("stop", "length") and told[1][0].answered == 1

"""`convert --to minigpt4o` at the command line: it reports, it refuses, it writes a folder that loads."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "minigpt4o"))

from gemma3n_folder import gemma3n_folder, own_ids, own_tokenizer

from minigpt4o.cli import main
from minigpt4o.common.files import verify

VOCAB, ROWS = 330, 4


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("gemma3n")
    own_tokenizer(home / "tokenizer", VOCAB, media_rows=ROWS)
    gemma3n_folder(home / "gemma", VOCAB, ROWS, own_ids(VOCAB, ROWS))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(home / "tokenizer" / file, home / "gemma" / file)
    return home / "gemma"


def test_the_command_converts_and_reports(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = own_tokenizer(tmp_path / "tokenizer", 350, "another text, another text\n", media_rows=ROWS)
    words = ["convert", str(source), str(tmp_path / "out"), "--to", "minigpt4o", "--tokenizer", str(tokenizer)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "vocabulary 330 -> 350 rows:" in told
    assert "by what they write" in told and "by role" in told
    assert verify(tmp_path / "out") == []
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "minigpt4o"


def test_a_gemma3n_folder_needs_no_to(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(source), str(tmp_path / "out")]) == 0
    assert "kept as they are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "minigpt4o", "--cfg-path", "x.yaml"], "--cfg-path"),
        (["--to", "own", "--tokenizer", "x"], "--to minigpt4o"),
        (["--to", "minigpt4o", "--tokenizer", "nowhere"], "nowhere: no tokenizer"),
        (["--to", "gemma"], "minigpt4o"),
    ],
)
def test_words_that_do_not_belong_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["convert", str(source), str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    assert main(["convert", str(tmp_path / "llama"), str(tmp_path / "out")]) == 2
    assert "only 'gemma3n' can become 'minigpt4o'" in capsys.readouterr().err

"""Claims about `predict`: every row has its line in order, a killed run goes on to the same bytes, bad rows say why."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from exporting import png, wav

from minigpt4o.cli import main
from minigpt4o.serve.predict_file import Output


@pytest.fixture(scope="module")
def chat_file(model_node: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML whose model is the same every time: weights that no file gives lie in a checkpoint."""
    import torch

    from minigpt4o.common.config import load_settings
    from minigpt4o.common.registry import registry

    folder = tmp_path_factory.mktemp("predict")
    run = {
        "runner": "chat",
        "vis_processor": {"name": "blip2_image_eval", "image_size": 16},
        "audio_processor": {"name": "log_mel", "n_mels": 8, "seconds": 0.12},
        "max_new_tokens": 12,
        "min_new_tokens": 4,
    }
    file = folder / "chat.yaml"
    file.write_text(yaml.safe_dump({"model": model_node, "run": run}), encoding="utf-8")
    model = registry.build(load_settings(file, []).model)
    torch.save({"model": {name: p.detach() for name, p in model.named_parameters()}}, folder / "whole.pth")
    file.write_text(yaml.safe_dump({"model": {**model_node, "ckpt": str(folder / "whole.pth")}, "run": run}))
    return file


def data_url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


ROWS: list[Any] = [
    {"id": "a", "image": "red.png", "prompt": "what is there?"},
    {"messages": [{"role": "user", "content": "what is there?"}]},
    {
        "id": "talk",
        "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}],
        "image": "red.png",
    },
    {"image": "none.png", "prompt": "what?"},
    "no JSON {",
    {"images": ["red.png", "blue.png"], "audio": "tone.wav", "question": "which?"},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": data_url(png(), "image/png")}},
                    {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav()).decode(), "format": "wav"}},
                    {"type": "text", "text": "what is <image> here?"},
                ],
            },
            {"role": "assistant", "content": "a small red circle"},
            {"role": "user", "content": "and its size?"},
        ]
    },
    {"image": "program.png", "prompt": "what?"},
    {"messages": [{"role": "user", "content": "<image>two marks<image>"}], "images": ["red.png"]},
    [1, 2],
    {"messages": [{"role": "judge", "content": "?"}]},
    {"prompt": "a <image> that is only a word"},
]
BAD = {4: "missing_file", 5: "bad_json", 8: "unreadable_image", 9: "media_mismatch", 10: "bad_json", 11: "bad_json"}


@pytest.fixture
def source(files: dict[str, Path], tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in ROWS]
    file.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return file


def predict(source: Path, out: Path, file: Path, *flags: str) -> int:
    return main(["predict", str(source), str(out), "--cfg-path", str(file), *flags])


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_row_has_its_line_in_order_and_bad_ones_say_why(chat_file, source, tmp_path, capsys) -> None:
    out = tmp_path / "new folder" / "out.jsonl"
    assert predict(source, out, chat_file) == 0
    header, *rows = rows_of(out)
    assert header["header"]["template"] == "toy" and header["header"]["decoding"]["max_new_tokens"] == 12
    assert [row["row"] for row in rows] == list(range(1, len(ROWS) + 1))
    assert {row["row"]: row["skipped"][0] for row in rows if "skipped" in row} == BAD
    assert all(f"in.jsonl row {n}" in rows[n - 1]["skipped"][1] for n in BAD if n != 8)
    assert rows[0]["id"] == "a" and rows[1]["id"] == "2" and rows[2]["reference"] == "red"
    told = capsys.readouterr().out
    assert "6 answered" in told and "6 could not be asked: bad_json 3" in told


def test_answers_are_those_of_a_chat(chat_file, source, files, tmp_path) -> None:
    from minigpt4o import load_chat
    from minigpt4o.conversation.sample import Media

    out = tmp_path / "out.jsonl"
    assert predict(source, out, chat_file, "--batch-size", "5") == 0
    rows = rows_of(out)[1:]
    chat = load_chat(chat_file)
    red, blue, tone = (Media(str(files[name])) for name in ("red.png", "blue.png", "tone.wav"))
    assert "".join(chat.fresh().ask("what is there?", [red])) == rows[0]["answer"]
    assert "".join(chat.fresh().ask("which?", [red, blue], [tone])) == rows[5]["answer"]
    assert "".join(chat.fresh().ask("a <image> that is only a word")) == rows[11]["answer"]


def test_a_killed_run_goes_on_to_the_same_bytes_whatever_the_batch_size(chat_file, source, tmp_path, capsys) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    assert predict(source, whole, chat_file, "--batch-size", "4") == 0
    data = whole.read_bytes()
    for cut in (10, data.index(b'"row": 3}'), data.index(b'"row": 7') + 3, len(data) - 1):
        torn.write_bytes(data[:cut])
        assert predict(source, torn, chat_file, "--batch-size", "1") == 0
        assert torn.read_bytes() == data
    capsys.readouterr()
    assert predict(source, torn, chat_file) == 0
    assert "0 answered" in (told := capsys.readouterr().out) and f"{len(ROWS)} stood there already" in told


def test_a_limit_can_be_raised_later(chat_file, source, tmp_path) -> None:
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    assert predict(source, out, chat_file, "--limit", "3") == 0
    assert len(rows_of(out)) == 4
    assert predict(source, out, chat_file) == predict(source, whole, chat_file) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_answers_of_another_model_or_file_are_not_continued(chat_file, source, tmp_path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    assert predict(source, out, chat_file) == 0
    assert predict(source, out, chat_file, "--decoding", "max_new_tokens=5") == 2
    assert "another decoding" in capsys.readouterr().err
    with source.open("a") as file:
        file.write('{"prompt": "one more"}\n')
    assert predict(source, out, chat_file) == 2
    assert "another input_sha256" in capsys.readouterr().err
    assert predict(source, out, chat_file, "--fresh") == 0
    other = tmp_path / "other.jsonl"
    other.write_text('{"row": 1}\n')
    assert predict(source, other, chat_file) == 2
    assert "no file of `predict`" in capsys.readouterr().err and other.read_text() == '{"row": 1}\n'


def test_what_cannot_be_run_is_refused(chat_file, source, tmp_path, capsys) -> None:
    out, empty = tmp_path / "out.jsonl", tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n[]\n")
    cases = [
        ((tmp_path / "none", out, chat_file), 3, "no such file"),
        ((source, source, chat_file), 2, "name another one"),
        ((empty, out, chat_file), 3, "no row"),
        ((bad, out, chat_file), 3, "none of its 2 rows"),
        ((source, out, chat_file, "--decoding", "max_tokens=5"), 2, "max_new_tokens"),
        ((source, out, chat_file, "--decoding", "5"), 2, "key=value"),
        ((source, out, chat_file, "--batch-size", "0"), 2, "below 1"),
    ]
    for words, code, told in cases:
        assert predict(*words) == code, words
        assert told in capsys.readouterr().err


def test_rows_come_from_standard_input_and_answers_go_to_standard_output(chat_file, source, tmp_path) -> None:
    whole = tmp_path / "whole.jsonl"
    flags = ["--media-root", str(tmp_path)]
    assert predict(source, whole, chat_file, *flags) == 0
    words = [sys.executable, "-m", "minigpt4o.cli", "predict", "-", "-", "--cfg-path", str(chat_file), *flags]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with source.open("rb") as rows:
        done = subprocess.run(words, stdin=rows, capture_output=True, env=environment, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = [json.loads(line.replace("in.jsonl row", "standard input row")) for line in whole.read_text().splitlines()]
    assert answers == wanted
    assert b"6 answered" in done.stderr


def test_two_at_once_do_not_write_into_one_file(chat_file, source, tmp_path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    header = {"model": "x"}
    first = Output(out, header, fresh=False)
    before = out.read_bytes()
    assert predict(source, out, chat_file, "--fresh") == 2
    assert "is being written by another" in capsys.readouterr().err and out.read_bytes() == before
    first.close()
    assert predict(source, out, chat_file, "--fresh") == 0


def test_places_that_hold_no_file_are_told_in_a_line(chat_file, source, tmp_path, capsys) -> None:
    (tmp_path / "array.json").write_text(json.dumps([{"prompt": "what?"}]))
    (tmp_path / "long array.json").write_text(json.dumps([{"prompt": "what?"}], indent=1))
    out = tmp_path / "out.jsonl"
    cases = [
        ((source, tmp_path, chat_file), 2, "is a folder"),
        ((tmp_path, out, chat_file), 3, "is a folder"),
        ((tmp_path / "array.json", out, chat_file), 3, "jq -c '.[]' array.json"),
        ((tmp_path / "long array.json", out, chat_file), 3, "one JSON array"),
        ((source, source / "x.jsonl", chat_file), 1, "in.jsonl"),
    ]
    if Path("/dev/full").exists():
        cases.append(((source, Path("/dev/full"), chat_file), 1, "no space left"))
    for words, code, told in cases:
        assert predict(*words) == code, words
        err = capsys.readouterr().err
        assert told in err and err.splitlines()[-1].startswith(f"ERROR {code} ")


def test_a_text_longer_than_the_model_reads_loses_its_oldest_turns_or_is_told(chat_file, tmp_path) -> None:
    said = [{"role": role, "content": f"{n} what is there? " * 4} for n in range(30) for role in ("user", "assistant")]
    rows = [{"messages": [*said, {"role": "user", "content": "last?"}]}, {"prompt": "what is there? " * 500}]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict(source, out, chat_file) == 0
    _, first, second = rows_of(out)
    assert first["answer"] and second["skipped"][0] == "too_long"

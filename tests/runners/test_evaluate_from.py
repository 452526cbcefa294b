"""Predictions scored again without a model: the same numbers, and nothing missing that is not said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_world import evaluated, make_world, results_of, seen, truth

from minigpt4o.cli import main

Again = Callable[..., Path]


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    return make_world(tmp_path, 20)


@pytest.fixture
def run(yaml: Path) -> Path:
    return evaluated(yaml)


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Again:
    """Score a file or folder again by the command line; the folder that is written. No model may be built."""
    monkeypatch.setattr("evaluate_world.Echo.__init__", None)

    def score(source: Path, *words: str, code: int = 0) -> Path:
        options = ["--options", f"run.output_dir={tmp_path}/again"]
        assert main(["eval", "--from", str(source), *words, *options]) == code
        if code:
            return tmp_path
        (folder,) = (tmp_path / "again/eval").iterdir()
        return folder

    return score


def test_a_run_folder_gives_its_own_numbers_again(run: Path, again: Again, capsys: pytest.CaptureFixture[str]) -> None:
    folder = again(run)
    first, second = results_of(run), results_of(folder)
    assert first["datasets"] == second["datasets"]
    assert first["variants"] == second["variants"]
    assert second["run"]["from"]["path"] == str(run) and not second["run"]["from"]["partial"]
    assert f"from: {run}" in capsys.readouterr().out


def test_one_file_of_ours_is_enough(run: Path, yaml: Path, again: Again) -> None:
    folder = again(run / "predictions/model.words.seen.jsonl", "--cfg-path", str(yaml))
    assert seen(folder)["scores"] == seen(run)["scores"]


def test_the_official_file_written_beside_is_read_back_to_the_same_score(run: Path, yaml: Path, again: Again) -> None:
    told = results_of(run)["datasets"]["words"]["variants"]["model"]["official"]
    assert (told["format"], told["file"], told["repeated"]) == ("vqa", "predictions/official/words.json", [])
    handed_in = json.loads((run / told["file"]).read_text())
    assert len(handed_in) == 20 and set(handed_in[0]) == {"question_id", "answer"}
    assert handed_in[3]["question_id"] == 103
    folder = again(run / told["file"], "--cfg-path", str(yaml))
    assert seen(folder, label="predictions")["scores"] == seen(run)["scores"]


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    """Three answers gone, one there twice, one that nobody asked, one line that is none."""
    lines = (run / "predictions/model.words.seen.jsonl").read_text().splitlines(keepends=True)
    header, rows = lines[0], lines[1:]
    extra = json.dumps({**json.loads(rows[0]), "id": "nobody"}) + "\n"
    file = tmp_path / "broken.jsonl"
    file.write_text("".join([header, *rows[3:], rows[5], extra, '{"id": "torn', "\n"]))
    return file


def test_missing_repeated_and_foreign_answers_are_refused_by_name(
    broken: Path, yaml: Path, again: Again, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again(broken, "--cfg-path", str(yaml), code=3)
    told = capsys.readouterr().err
    for words in (
        "3 prompts have no prediction (first '100', '101', '102')",
        "1 predictions repeat an id (first '105')",
    ):
        assert words in told
    assert "1 predictions answer what was not asked (first 'nobody')" in told
    assert "1 lines hold no prediction (first 'line 21')" in told
    assert not (tmp_path / "again").exists()


def test_partial_says_n_of_n_and_counts_the_missing_as_wrong(
    broken: Path, run: Path, yaml: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = again(broken, "--cfg-path", str(yaml), "--partial")
    found, whole = seen(folder), seen(run)
    assert (found["n"], found["asked"], found["skipped"]) == (17, 20, {"no_prediction": 3})
    assert found["scores"]["exact_match"]["n"] == 20 and found["scores_answered"]["exact_match"]["n"] == 17
    right = round(found["scores_answered"]["exact_match"]["value"] * 17)
    assert found["scores"]["exact_match"]["value"] == pytest.approx(right / 20)
    assert found["scores"]["exact_match"]["value"] <= whole["scores"]["exact_match"]["value"]
    faults = results_of(folder)["run"]["from"]["faults"]["words (model, seen)"]
    assert {kind: one["count"] for kind, one in faults.items()} == {
        "missing": 3,
        "duplicate": 1,
        "extra": 1,
        "malformed": 1,
    }
    out = capsys.readouterr().out
    assert "(17 of 20)" in out and "without them exact_match is" in out


def test_answers_to_data_that_have_changed_are_scored_against_todays_and_it_is_said(
    run: Path, yaml: Path, again: Again, tmp_path: Path
) -> None:
    rows = json.loads((tmp_path / "questions.json").read_text())
    rows[0]["answer"] = ["something else"]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    folder = again(run)
    assert results_of(folder)["run"]["from"]["changed"] == ["words (model, seen)"]
    assert seen(folder)["data_sha256"] != seen(run)["data_sha256"]


def test_answers_that_are_no_texts_are_wrong_and_end_nothing(yaml: Path, tmp_path: Path, again: Again) -> None:
    odd: list[Any] = [None, 7, [], {"a": 1}, "", "\ud800", "x" * 100_000, True, "[" * 5000, truth(9)]
    rows = [{"id": str(100 + i), "answer": odd[i % len(odd)]} for i in range(20)]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = again(file, "--cfg-path", str(yaml))
    assert seen(folder, label="predictions")["scores"]["exact_match"]["value"] == pytest.approx(1 / 20)


def test_lines_whose_fields_are_of_other_kinds_are_counted_as_malformed(
    yaml: Path, tmp_path: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [{"id": str(100 + i), "answer": truth(i), "meta": None} for i in range(20)]
    odd: list[dict[str, Any]] = [{"meta": "x"}, {"meta": {"likelihoods": 3}}, {"meta": {"likelihoods": {"a": 1}}}]
    odd += [{"skipped": "gone"}, {"skipped": []}, {"id": None}, {"header": 5}]
    bad = [{"id": "100", "answer": "x", **one} for one in odd[:-1]] + odd[-1:]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *bad]))
    again(file, "--cfg-path", str(yaml), code=3)
    assert "7 lines hold no prediction (first 'line 21', 'line 22', 'line 23')" in capsys.readouterr().err
    folder = again(file, "--cfg-path", str(yaml), "--partial")
    assert seen(folder, label="predictions")["scores"]["exact_match"]["value"] == 1.0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--from", "nowhere"], "name the YAML with --cfg-path"),
        (["--from", "nowhere", "--cfg-path", "{yaml}"], "nowhere: no such file or folder"),
        (["--cfg-path", "{yaml}", "--partial"], "--partial belongs to --from"),
        (["--from", "{folder}", "--cfg-path", "{yaml}"], "neither predictions"),
    ],
)
def test_what_cannot_be_scored_is_told(
    words: list[str], named: str, yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["eval", *(word.format(yaml=yaml, folder=tmp_path / "empty") for word in words)]) in (2, 3)
    assert named in capsys.readouterr().err

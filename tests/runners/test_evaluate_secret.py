"""A leaderboard's questions, whose truth nobody tells: asked, written down to be handed in, and given no score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_world import evaluated, make_world, results_of, seen

from minigpt4o.common.errors import DataError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Box, Sample, Turn
from minigpt4o.runners.evaluate_compare import compare
from minigpt4o.runners.evaluate_items import Item
from minigpt4o.runners.evaluate_results import scored
from minigpt4o.runners.evaluate_source import File, matched


def without_answers(folder: Path, places: range) -> None:
    rows = json.loads((folder / "questions.json").read_text())
    for place in places:
        rows[place].pop("answer")
    (folder / "questions.json").write_text(json.dumps(rows))


def test_questions_without_answers_are_asked_and_handed_in_and_have_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = make_world(tmp_path, 12, report=True, baselines=["blind", "shuffled"])
    without_answers(tmp_path, range(12))
    run = evaluated(yaml, "datasets.words.unanswered=ask")
    told = seen(run)
    assert (told["n"], told["asked"], told["no_truth"], told["scores"], told["by"]) == (12, 12, 12, {}, {})
    tree = results_of(run)["datasets"]["words"]
    assert tree["headline"] == "" and list(tree["variants"]["model"]["conditions"]) == ["seen"]
    official = json.loads((run / tree["variants"]["model"]["official"]["file"]).read_text())
    assert [row["question_id"] for row in official] == list(range(100, 112)) and all(row["answer"] for row in official)
    out = capsys.readouterr().out
    assert "no truth, no score" in out
    assert "12 answers, and no truth to score them by: hand in predictions/official/words.json" in out
    page = (run / "report.html").read_text()
    assert "no truth, no score" in page and '"verdict":"open"' in page
    again = evaluated(yaml, "datasets.words.unanswered=ask", run_id="again")
    with pytest.raises(DataError, match="measured by neither"):
        compare(str(run), str(again))


def test_without_being_told_to_ask_them_such_questions_are_bad_samples(tmp_path: Path) -> None:
    yaml = make_world(tmp_path, 12)
    without_answers(tmp_path, range(12))
    with pytest.raises(DataError, match="12 of 12 samples cannot be asked"):
        evaluated(yaml)


def test_where_some_have_a_truth_the_others_are_wrong_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = make_world(tmp_path, 12)
    without_answers(tmp_path, range(3))
    told = seen(evaluated(yaml, "datasets.words.unanswered=ask", "model.skill=1.0"))
    assert told["no_truth"] == 3 and told["scores"]["exact_match"]["value"] == 0.75
    assert "3 of 12 samples have no truth and count as wrong" in capsys.readouterr().out


def test_a_box_that_is_handed_in_in_pixels_is_scored_as_it_was_given() -> None:
    from minigpt4o.metrics.formats import Said
    from minigpt4o.runners.evaluate_from import _row

    true = Box((20.0, 20.0, 24.0, 24.0), (640, 480))
    sample = Sample("1", [Turn("user", "q")], boxes=[true])
    task = registry.build(Part("task", "referring", {"official_format": "refcoco"}))
    file = File(Path("boxes.jsonl"), "refcoco", "set", said=[Said("1", "", box=true.xyxy)])
    found = matched(file, [Item(sample)], task).found
    rows: list[Any] = [_row(found["1"], Item(sample), task)]
    assert scored(task, rows, 10, 0).measured["mean_iou"].value == 1.0  # in hundredths of 640 it is 0.4
    rows[0]["meta"] = {}
    assert scored(task, rows, 10, 0).measured["mean_iou"].value < 0.6

"""A sample that could not be asked is wrong whatever the task, and takes no metric away from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluate_world import evaluated, make_world, results_of

from minigpt4o.common.registry import Part, registry
from minigpt4o.runners.evaluate_results import gain, scored
from minigpt4o.tasks.base import Prediction

SKIPPED = ["no such file", "a.jpg"]


def rows(labels: list[str], unanswered: set[int], ranked: bool) -> list[dict[str, Any]]:
    """Right answers to yes-or-no questions, without those that could not be asked."""
    found = []
    for place, label in enumerate(labels):
        answer = "" if place in unanswered else label
        totals = {"yes": [-1.0 if label == "yes" else -3.0, 1], "no": [-2.0, 1]}
        meta = {"likelihoods": totals} if ranked and place not in unanswered else {}
        row = Prediction(str(place), "set", "en", "q", answer, [label], [], meta).row()
        found.append(row | ({"skipped": SKIPPED} if place in unanswered else {}))
    return found


@pytest.mark.parametrize("by", ["likelihood", "both"])
def test_one_missing_picture_neither_renames_nor_removes_a_score(by: str) -> None:
    task = registry.build(Part("task", "yes_no", {"by": by}))
    labels = ["yes", "no"] * 10
    whole, partial = (scored(task, rows(labels, gone, True), 50, 0) for gone in (set(), {3, 4}))
    assert list(whole.measured) == list(partial.measured) and "auroc" in partial.measured
    assert whole.headline == partial.headline
    assert (whole.measured["auroc"].value, partial.measured["auroc"].value) == (1.0, pytest.approx(0.9 * 0.9))
    assert partial.measured["ranked_accuracy"].value == 0.9
    told = partial.result
    assert (told["n"], told["asked"], told["skipped"]) == (18, 20, {"no such file": 2})
    assert told["scores_answered"]["ranked_accuracy"]["value"] == 1.0


@pytest.mark.parametrize("reading", ["first", "pope", "equal"])
@pytest.mark.parametrize("label", ["yes", "no"])
def test_a_missing_picture_is_neither_a_right_yes_nor_a_right_no(reading: str, label: str) -> None:
    task = registry.build(Part("task", "pope", {"reading": reading}))
    found = scored(task, rows([label] * 4, {0}, False), 50, 0).measured
    assert found["accuracy"].value == 0.75
    assert found["yes_share"].value == (0.75 if label == "yes" else 0.0)
    assert sum(found["accuracy"].unread) == 0  # nobody was asked: nothing was unreadable


def test_what_the_media_bring_is_measured_where_both_answered() -> None:
    task = registry.build(Part("task", "pope", {}))
    labels = ["yes", "no"] * 10
    whole, partial = (scored(task, rows(labels, gone, False), 50, 0) for gone in (set(), {0, 1, 2, 3, 4}))
    found = gain(partial, whole, 50, 0)  # as good without: that five were not answered is no harm the media do
    assert (found["value"], found["n"]) == (0.0, 15)


def test_a_merged_file_that_others_cut_is_completed_and_not_scored_short(tmp_path: Path) -> None:
    yaml = make_world(tmp_path, 30)
    run = evaluated(yaml, run_id="one")
    file, peace = run / "predictions/model.words.seen.jsonl", results_of(run)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    evaluated(yaml, run_id="one")
    assert file.read_bytes() == whole
    assert results_of(run) == peace


def test_questions_about_one_picture_are_drawn_together_and_pictures_without_a_name_are_not() -> None:
    task = registry.build(Part("task", "pope", {}))
    asked = rows(["yes", "no"] * 10, set(), False)
    for shown, groups in (("a.jpg", 10), ("bytes in memory", 20)):
        named = [
            {**row, "media": {"image": [shown if " " in shown else f"{i // 2}.jpg"]}} for i, row in enumerate(asked)
        ]
        assert len(set(scored(task, named, 50, 0).measured["f1"].groups)) == groups

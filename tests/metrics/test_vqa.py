"""The official VQA accuracy, on facts measured with the official tool and on 200 real questions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minigpt4o.metrics.choice import read_choice, read_yes_no
from minigpt4o.metrics.vqa import official, official_accuracy, simple, token_f1

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "vqa"

# answer, the ten true answers as {answer: how often}, accuracy in percent by the official tool
FACTS = [
    ("dog", {"dog": 10}, 100),
    ("Dog.", {"dog": 10}, 0),
    ("a dog", {"dog": 10}, 0),
    ("a dog", {"dog": 9, "cat": 1}, 100),
    ("dog", {"dog": 3, "cat": 7}, 90),
    ("dog", {"dog": 2, "cat": 8}, 60),
    ("dog", {"dog": 1, "cat": 9}, 30),
    ("two", {"2": 10}, 0),
    ("two", {"2": 5, "3": 5}, 100),
    ("dont know", {"don't know": 4, "x": 6}, 100),
    ("black and white", {"black & white": 5, "black and white": 5}, 100),
    ("red,white", {"red white": 4, "no": 6}, 100),
    ("1,000", {"1000": 5, "no": 5}, 100),
    ("hot-dog", {"hot dog": 5, "sausage": 5}, 100),
    ("3.5", {"3.5": 5, "35": 5}, 100),
    ("", {"dog": 10}, 0),
]


@pytest.mark.parametrize(("answer", "truths", "percent"), FACTS)
def test_official_accuracy_agrees_with_the_official_tool(answer: str, truths: dict[str, int], percent: int) -> None:
    ten = [word for word, count in truths.items() for _ in range(count)]
    assert round(100 * official_accuracy(answer, ten), 2) == percent


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no questions in {DATA} (MINIGPT4O_TEST_DATA)")
def test_two_hundred_real_questions_score_as_with_the_official_tool() -> None:
    rows = json.loads((DATA / "vqa_v2_dev200.json").read_text())
    found = official([r["prediction"] for r in rows["questions"]], [r["answers"] for r in rows["questions"]])
    assert [round(100 * one, 2) for one in found.each] == [r["official_accuracy"] for r in rows["questions"]]
    assert round(100 * found.value, 2) == rows["official_overall"]


def test_simple_match_forgives_case_articles_and_outer_punctuation_only() -> None:
    answers = ["The Red circle.", "赤。", "red", "", "3"]
    truths = [["red circle"], ["赤"], ["blue", "red"], ["x"], ["3."]]
    assert simple(answers, truths).each == [1, 1, 1, 0, 1]
    assert simple(["reddish"], [["red"]]).value == 0


def test_token_f1_takes_the_best_truth() -> None:
    assert token_f1([["a", "red", "star"]], [[["blue"], ["red", "star"]]]).value == pytest.approx(0.8)
    assert token_f1([[]], [[["red"]]]).value == 0


def test_yes_no_and_choices_are_read_from_free_text() -> None:
    assert [read_yes_no(t) for t in ("Yes.", "No, it is not", "はい", "maybe")] == ["yes", "no", "yes", None]
    choices = ["cat", "dog", "hot dog stand"]
    assert [read_choice(t, choices) for t in ("B", "(b)", "b. dog", "Cat", "it is a cat", "x y")] == [
        1,
        1,
        1,
        0,
        0,
        None,
    ]

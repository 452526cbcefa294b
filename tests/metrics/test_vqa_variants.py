"""The copies of the VQA accuracy disagree; each is computed under its own name and equals its own source."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minigpt4o.metrics.vqa import anls, aokvqa, equal, evalai, evalai_form, lavis, minigpt4, official, vizwiz

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "vqa"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no questions in {DATA} (MINIGPT4O_TEST_DATA)")


@needs_data
def test_real_questions_score_as_with_laviss_copy_and_with_minigpt4s_lower_case() -> None:
    rows = json.loads((DATA / "vqa_v2_dev200.json").read_text())
    answers, truths = [r["prediction"] for r in rows["questions"]], [r["answers"] for r in rows["questions"]]
    found = lavis(answers, truths)
    assert [round(100 * one, 2) for one in found.each] == [r["lavis_accuracy"] for r in rows["questions"]]
    assert round(100 * found.value, 2) == rows["lavis_copy_overall"]
    lowered = official([answer.lower() for answer in answers], truths)
    assert minigpt4(answers, truths).each == lowered.each != official(answers, truths).each


# answer, ten true answers as {answer: how often}, percent: official, minigpt4, lavis, evalai
TABLE = [
    ("dog", {"dog": 10}, (100, 100, 100, 100)),
    ("Dog.", {"dog": 10}, (0, 0, 100, 100)),
    ("Dog", {"dog": 10}, (0, 100, 100, 100)),
    ("dog<unk>", {"dog": 10}, (0, 100, 0, 0)),
    ("a dog", {"dog": 10}, (0, 0, 100, 100)),
    ("a dog", {"a dog": 10}, (100, 100, 0, 100)),
    ("a dog", {"dog": 9, "cat": 1}, (100, 100, 100, 100)),
    ("two", {"2": 5, "3": 5}, (100, 100, 100, 100)),
    ("two", {"two": 5, "3": 5}, (100, 100, 0, 100)),
    ("dont know", {"don't know": 4, "x": 6}, (100, 100, 100, 100)),
    ("mans", {"man's": 4, "x": 6}, (0, 0, 0, 0)),
    ("man 's hat", {"man's hat": 4, "x": 6}, (0, 0, 0, 100)),
    ("1,000", {"1000": 5, "no": 5}, (100, 100, 100, 100)),
    ("red,white", {"red white": 4, "no": 6}, (100, 100, 100, 0)),
    ("dog", {"dog": 2, "cat": 8}, (60, 60, 60, 60)),
    ("", {"dog": 10}, (0, 0, 0, 0)),
]


@pytest.mark.parametrize(("answer", "truths", "percent"), TABLE)
def test_each_variant_has_its_own_opinion(answer: str, truths: dict[str, int], percent: tuple[int, ...]) -> None:
    ten = [word for word, count in truths.items() for _ in range(count)]
    found = [round(100 * variant([answer], [ten]).value, 2) for variant in (official, minigpt4, lavis, evalai)]
    assert found == list(percent)


def test_the_variants_name_themselves() -> None:
    names = [variant(["a"], [["a"] * 10]).variant for variant in (official, minigpt4, lavis, evalai)]
    assert len(set(names)) == 4
    assert evalai_form("The man's Hat?") == "man 's hat"


def test_vizwiz_gqa_and_aokvqa_count_as_their_scripts() -> None:
    assert vizwiz(["Dog", "dog", "cat"], [["dog"] * 2, ["dog"] * 5, ["dog"]]).each == [pytest.approx(2 / 3), 1.0, 0.0]
    assert equal(["Red", "red "], [["red"], ["red"]]).each == [1.0, 0.0]
    assert aokvqa(["Dog", "dog"], [["dog"] * 3, ["dog"] * 3]).each == [0.0, 1.0]


def test_anls_forgives_up_to_half_the_letters() -> None:
    found = anls(["hello", "hellp", "xyz", "", "ab"], [["Hello"], ["hello", "x"], ["hello"], ["a"], []])
    assert found.each == [1.0, pytest.approx(0.8), 0.0, 0.0, 0.0]
    assert found.unread == [False, False, False, True, False]
    assert anls([""], [[""]]).value == 1.0

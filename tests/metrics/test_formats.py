"""Predictions go out in the official formats and come back the same; what does not fit is named."""

from __future__ import annotations

import json

import pytest

from minigpt4o.common.errors import DataError
from minigpt4o.metrics.formats import FORMATS, NAMES, Said, duplicates, read, recognised, written

ANSWERS = [Said("42", "a dog"), Said("COCO_val_7.jpg", "赤い丸 😀"), Said("007", "")]

# The first row as the official tools expect it.
FIRST = {
    "coco_caption": '{"image_id": 42, "caption": "a dog"}',
    "nocaps": '{"image_id": 42, "caption": "a dog"}',
    "vqa": '{"question_id": 42, "answer": "a dog"}',
    "gqa": '{"questionId": "42", "prediction": "a dog"}',
    "vizwiz": '{"image": "42", "answer": "a dog"}',
    "pope": '{"question_id": 42, "question": "", "answer": "a dog"}',
    "refcoco": '{"id": "42", "bbox": null, "answer": "a dog"}',
    "scienceqa": '{"results": {"42": "a dog"',
    "aokvqa": '{"42": {"direct_answer": "a dog", "multiple_choice": ""}',
    "refcoco_minigpt4": '{"42": ["a dog"]',
}


@pytest.mark.parametrize("name", NAMES)
def test_every_format_looks_as_its_tool_wants_it_and_reads_back(name: str) -> None:
    text = written(name, ANSWERS)
    assert FIRST[name] in text.split("\n")[0]
    assert read(name, text) == ANSWERS
    found = recognised(text)
    assert read(found, text) == ANSWERS  # NoCaps looks like COCO, and that is no harm


def test_lists_and_lines_are_both_read() -> None:
    rows = [{"question_id": 1, "answer": "x"}, {"question_id": 2, "answer": "y"}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    assert read("vqa", lines) == read("vqa", json.dumps(rows)) == [Said("1", "x"), Said("2", "y")]
    assert read("vqa", "") == []


def test_boxes_questions_choices_and_indices_survive() -> None:
    box = [Said("3", "{<1><2><3><4>}", box=(1.0, 2.5, 3.0, 4.0))]
    assert read("refcoco", written("refcoco", box)) == box
    asked = [Said("", "yes", question="Is there a dog?")]
    assert json.loads(written("pope", asked)) == {"question": "Is there a dog?", "answer": "yes"}
    assert read("pope", written("pope", asked)) == asked
    chosen = [Said("q1", "park", choice="zoo")]
    assert read("aokvqa", written("aokvqa", chosen)) == chosen
    assert json.loads(written("scienceqa", [Said("5", "2")])) == {"results": {"5": 2}}
    assert read("vqa", '[{"question_id": 9, "text": "LLaVA writes text"}]') == [Said("9", "LLaVA writes text")]


def test_null_answers_are_empty_and_numbers_are_text() -> None:
    rows = '[{"question_id": 1, "answer": null}, {"question_id": 2, "answer": 3}]'
    assert [one.answer for one in read("vqa", rows)] == ["", "3"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("vqa", '[{"question_id": 1}]', "row 1: no field 'answer'; it has question_id"),
        ("vqa", '[{"answer": "x"}]', "no field 'question_id'"),
        ("vqa", '["x"]', "row 1 is str"),
        ("vqa", '{"question_id": 1, "answer": "x"}\nnonsense', "line 2 is neither JSON"),
        ("coco_captions", "[]", "did you mean 'coco_caption'"),
        ("scienceqa", '{"a": 1}', "not one object keyed by id"),
        ("refcoco_minigpt4", '{"a": 1}', "not one object keyed by id"),
    ],
)
def test_what_does_not_fit_is_named(name: str, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says.replace("{", "\\{")):
        read(name, text)


def test_rows_that_do_not_fit_may_be_named_and_left_out() -> None:
    broken: list[str] = []
    rows = [{"question_id": 1, "answer": "x"}, {"question_id": None, "answer": "y"}, {"question_id": 3}]
    assert [one.id for one in read("vqa", json.dumps(rows), "file", broken)] == ["1"]
    assert broken == ["row 2", "row 3"]


def test_an_id_that_stands_twice_in_a_keyed_file_is_not_lost_in_silence() -> None:
    with pytest.raises(DataError, match="'5' stands twice in one object"):
        read("scienceqa", '{"results": {"5": 1, "5": 2}}')


@pytest.mark.parametrize("box", ["[NaN, 1, 2, 3]", '["a", 1, 2, 3]', "[1, 2, 3]", f"[{10**400}, 1, 2, 3]", "null", "7"])
def test_a_box_that_is_none_is_read_as_none(box: str) -> None:
    assert read("refcoco", f'{{"id": "1", "bbox": {box}, "answer": ""}}')[0].box is None


def test_an_unknown_file_is_refused_with_the_known_formats() -> None:
    with pytest.raises(DataError, match="fields a, b fit none of the formats coco_caption"):
        recognised('[{"a": 1, "b": 2}]')
    assert duplicates([Said("1", "a"), Said("2", "b"), Said("1", "c"), Said("", "x"), Said("", "y")]) == ["1"]
    assert all(form.source for form in FORMATS.values())

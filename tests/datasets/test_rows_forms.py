"""File names made of columns, rows unfolded from lists, words for labels, texts from templates."""

import json
import random

import pytest

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets.tables.rows import Row, unfold
from minigpt4o.datasets.wording import Wording

ROW = Row({"id": 9, "url": "https://cs/VG_100K/1.jpg?", "name": "a/b/COCO_9.jpg", "ref": "COCO_train_9_4"}, "f.json", 1)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("COCO_{id:012d}.jpg", "COCO_000000000009.jpg"),
        ("{id:04}.jpg", "0009.jpg"),
        ("{name:name}", "COCO_9.jpg"),
        ("{name:tail2}", "b/COCO_9.jpg"),
        ("{id}{name:ext}", "9.jpg"),
        ("{ref:.12}.jpg", "COCO_train_9.jpg"),
    ],
)
def test_a_file_name_is_made_of_columns(template, name):
    assert ROW.fill(template) == name


def test_an_unknown_form_is_told():
    with pytest.raises(DataError, match="unknown form; known: name, ext, tail2"):
        ROW.fill("{name:base}")


def test_lists_side_by_side_become_rows_and_unequal_ones_are_told():
    rows = unfold(
        [Row({"q": ["a", "b"], "a": [1, 2], "id": 7}, "f", 1), Row({"q": ["a"], "a": []}, "f", 2)], ["q", "a"]
    )
    assert [row.values for row in rows[:2]] == [{"q": "a", "a": 1, "id": 7}, {"q": "b", "a": 2, "id": 7}]
    with pytest.raises(SkipSample, match="f row 2: q, a are not lists of equal length"):
        rows[2].check()


def build(tmp_path, builder, rows, split="train", **values):
    (tmp_path / "1.jpg").touch()
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    values = {"annotations": {split: str(file)}, "media_root": str(tmp_path)} | values
    return registry.build(Part("builder", builder, values), name="mine", split=split)


def test_an_answer_may_be_a_label_or_the_number_of_a_choice(tmp_path):
    rows = [
        {"image": "1.jpg", "question": "is it?", "answer": answer, "choices": ["one", "two"]} for answer in (1, 0, 5)
    ]
    labelled = build(tmp_path, "questions", rows, labels={"1": "yes", "0": "no"})
    assert [labelled.sample(i, random.Random(0)).answers for i in (0, 1, 2)] == [["yes"], ["no"], ["5"]]
    fields = {"image": "image", "question": "question", "answer": "answer", "choices": "choices"}
    chosen = build(tmp_path, "questions", rows, fields=fields, answer_is_choice=True)
    assert chosen.sample(0, random.Random(0)).turns[1].text == "two"
    assert chosen.sample(0, random.Random(0)).meta["choices"] == ["one", "two"]
    with pytest.raises(SkipSample, match="'5' is no number among 2 choices"):
        chosen.sample(2, random.Random(0))


def test_a_text_may_be_made_of_columns_and_a_place_may_be_optional(tmp_path):
    rows = [
        {"image": "1.jpg", "phrase": "dogs", "bbox": "{<1><2><3><4>}"},
        {"image": "1.jpg", "phrase": "cat", "bbox": "x"},
    ]
    rows[1]["hint"] = "look left"
    values = {"text_template": "<p>{phrase}</p> {bbox}", "prompts": ["where is {phrase}? {hint?}"]}
    builder = build(tmp_path, "pairs", rows, **values)
    assert [t.text for t in builder.sample(0, random.Random(0)).turns] == [
        "<image>where is dogs?",
        "<p>dogs</p> {<1><2><3><4>}",
    ]
    assert builder.sample(1, random.Random(0)).turns[0].text == "<image>where is cat? look left"


def test_a_dialogue_may_be_cut_after_some_rounds_and_compat_keeps_its_blanks(tmp_path):
    said = [("human", "<image>\nWhat\nis it? "), ("gpt", " A dog. "), ("human", " Why?"), ("gpt", "Because. ")]
    rows = [{"image": "1.jpg", "conversations": [{"from": who, "value": text} for who, text in said]}]
    texts = {}
    for profile in ("default", "compat"):
        sample = build(tmp_path, "conversations", rows, profile=profile).sample(0, random.Random(0))
        texts[profile] = [t.text for t in sample.turns]
    assert texts["default"] == ["<image>What\nis it?", "A dog.", "Why?", "Because."]
    assert texts["compat"] == ["<image>Whatis it? ", " A dog. ", " Why? ", "Because. "]
    assert len(build(tmp_path, "conversations", rows, rounds=1).sample(0, random.Random(0)).turns) == 2


def test_compat_weighs_answers_by_frequency_with_the_references_draw(tmp_path):
    rows = [{"image": "1.jpg", "question": "q", "answer": ["b", "a", "b", "c"]}]
    builder = build(tmp_path, "questions", rows, profile="compat")
    for seed in range(40):
        rng = random.Random(seed)
        expected = rng.choices(["b", "a", "c"], weights=[0.5, 0.25, 0.25], k=1)[0]
        assert builder.sample(0, random.Random(seed)).turns[1].text == expected


@pytest.mark.parametrize(
    ("prompt", "thing", "asked"),
    [
        ("where is the {x} ?", "the man", "where is the man ?"),
        ("where is the {x} ?", "A man", "where is the man ?"),
        ("where is the {x} ?", "theory", "where is the theory ?"),
        ("where is {x} ?", "the man", "where is the man ?"),
        ("bathe {x}", "the man", "bathe the man"),
    ],
)
def test_an_article_is_not_said_twice(prompt, thing, asked):
    assert Wording("default", "train").filled(prompt, {"x": thing}) == asked
    assert Wording("compat", "train").filled(prompt, {"x": thing}) == prompt.replace("{x}", thing)

"""Each evaluation task asks the right prompts and scores what people would call right."""

from __future__ import annotations

import json

import pytest

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Box, Media, Sample, Turn
from minigpt4o.tasks.base import Prediction


def task(name: str, **values: object) -> object:
    return registry.build(Part("task", name, values))


def said(
    answer: str, truth: list[str], language: str = "en", boxes: list[Box] | None = None, **meta: object
) -> Prediction:
    return Prediction(answer, "set", language, "prompt", answer, truth, boxes or [], meta)


def box(*xyxy: float) -> Box:
    return Box(xyxy, (200, 100))


def test_decoding_comes_from_the_configuration() -> None:
    decoding = task("captioning", max_new_tokens=7, num_beams=3).decoding
    assert (decoding.max_new_tokens, decoding.num_beams, decoding.do_sample) == (7, 3, False)


def test_a_prediction_survives_being_written_down() -> None:
    sample = Sample(
        "7",
        [Turn("user", "<image>where?"), Turn("assistant", "{<1><2><3><4>}")],
        [Media("a.png")],
        boxes=[box(1, 2, 3, 4)],
    )
    prediction = task("referring").prediction(sample, "where?", "here", "donor")
    assert Prediction.from_row(json.loads(json.dumps(prediction.row()))) == prediction
    assert prediction.truth == ["{<1><2><3><4>}"]
    assert prediction.media == {"image": ["a.png"]}


def test_ten_answers_are_scored_by_the_official_measure_and_fewer_by_matching() -> None:
    ten = task("vqa").score([said("Dog", ["dog"] * 9 + ["cat"]), said("cow", ["cow"] * 3 + ["ox"] * 7)])
    assert list(ten) == ["vqa_accuracy", "exact_match"]
    assert ten["vqa_accuracy"].value == pytest.approx(0.95)
    one = task("audio_qa").score([said("Bell.", ["bell"]), said("a bell", ["buzz"])])
    assert list(one) == ["exact_match"]
    assert (one["exact_match"].value, one["exact_match"].n) == (0.5, 2)


def test_a_found_box_counts_and_an_unreadable_answer_is_wrong_and_counted() -> None:
    rows = [
        said("{<0><0><50><100>}", [], boxes=[box(0, 0, 100, 100)]),
        said("there: {<50><0><100><100>} or {<0><0><50><100>}", [], boxes=[box(0, 0, 100, 100)]),
        said("on the left", [], boxes=[box(0, 0, 100, 100)]),
        said("{<50><0><0><100>}", [], boxes=[box(0, 0, 100, 100)]),
    ]
    found = task("referring").score(rows)
    assert (found["acc@0.5"].value, found["acc@0.5"].n, found["acc@0.5"].unparsable) == (0.25, 4, 2)
    assert found["mean_iou"].value == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    "answer", ["", "{", "{<1>}", "{<999><0><1><2>}", "<" * 5000, "\ud800", "{<1><2><3><4>" * 200, "💥"]
)
@pytest.mark.parametrize("name", ["captioning", "vqa", "referring", "audio_captioning", "conversation"])
def test_no_answer_is_too_broken_to_be_scored(name: str, answer: str) -> None:
    for score in task(name).score([said(answer, ["a star"], boxes=[box(0, 0, 9, 9)])], rounds=10).values():
        assert 0 <= score.value < 0.5


def test_captions_with_attributes_are_led_by_them() -> None:
    nested = [["small", "red", "star", "top"], ["big", "blue", "ring", "left"]]
    text = "a small red star at the top and a big blue ring at the left"
    for attributes in (nested, nested[0] + nested[1]):
        found = task("captioning").score(
            [said(text, [text], attributes=attributes), said("", ["x"], attributes=attributes)]
        )
        assert next(iter(found)) == "attributes"
        assert (found["attributes"].value, found["objects"].value) == (0.5, 0.5)
    found = task("audio_captioning").score(
        [said("a high bell once", ["a high bell once"], attributes="high|bell|once")]
    )
    assert found["attributes"].value == 1.0
    assert "attributes" not in task("captioning").score([said(text, [text])])


def test_a_conversation_asks_every_turn_after_the_true_history() -> None:
    turns = [
        Turn("user", "<image>what is it?"),
        Turn("assistant", "a star"),
        Turn("user", "<audio>and this?"),
        Turn("assistant", "a bell"),
    ]
    first, second = task("conversation").items(Sample("c", turns, [Media("p.png")], [Media("s.wav")]))
    assert (first.id, first.turns, first.images, first.audios) == ("c#1", turns[:2], [Media("p.png")], [])
    assert (second.id, second.turns, second.audios) == ("c#2", turns, [Media("s.wav")])
    assert (first.answers, second.answers) == (["a star"], ["a bell"])
    found = task("conversation").score([said("A star.", ["a star"]), said("a loud bell", ["a bell"])])
    assert found["exact_match"].value == 0.5
    assert found["token_f1"].value == pytest.approx((1 + 0.8) / 2)


def test_an_evaluation_task_can_be_trained_on() -> None:
    assert task("vqa").train_step(lambda batch: ("loss of", batch), "batch") == ("loss of", "batch")


def test_japanese_is_scored_too() -> None:
    found = task("captioning").score(
        [said("左上に赤い丸", ["左上に赤い丸"], "ja"), said("青い星", ["下に青い星"], "ja")]
    )
    assert found["rouge_l"].value > 0.6
    assert "characters" in found["rouge_l"].variant or "fugashi" in found["rouge_l"].variant

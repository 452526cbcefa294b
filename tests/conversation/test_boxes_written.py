"""Boxes are carried as objects: written where their marks stand, in the frame that the model is shown, and back."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import IGNORE
from minigpt4o.conversation.boxes import BoxError, parse_boxes, to_pixels
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.marks import escape_boxes, escape_marks, unescape_marks
from minigpt4o.conversation.objects import answered_about, cut_boxes, in_original_frame, lifted, seen, written
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Box, Media, Sample, Turn
from minigpt4o.conversation.template import load_template
from minigpt4o.processors.geometry import cropped, flipped, padded, resized

SIZE = (80, 40)
DOG, CAT = Box((8, 4, 40, 20), SIZE, "dog"), Box((40, 20, 79.7, 40), SIZE, "cat")
RNG = random.Random(0)


def talk(*texts: str, boxes: list[Box] | None = None, **more: Any) -> Sample:
    turns = [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return Sample("s", turns, boxes=boxes or [], where="rows.json:3", **more)


def texts(sample: Sample) -> list[str]:
    return [turn.text for turn in sample.turns]


def test_each_mark_becomes_the_next_box_over_all_turns() -> None:
    sample = talk("what is <bbox>?", "a dog", "and the cat?", "at <bbox>.", boxes=[DOG, CAT])
    assert texts(written(sample)) == [
        "what is {<10><10><50><50>}?",
        "a dog",
        "and the cat?",
        "at {<50><50><100><100>}.",
    ]
    cut = written(replace(sample, rounding="truncate"))
    assert texts(cut)[3] == "at {<50><50><99><100>}."
    assert written(sample).boxes == [DOG, CAT]


def test_without_marks_a_sample_is_left_alone() -> None:
    for sample in (talk("hello", "you"), talk("where?", "{<10><10><50><50>}", boxes=[DOG])):
        assert written(sample) is sample


def test_marks_and_boxes_that_disagree_are_named() -> None:
    with pytest.raises(SkipSample, match=r"media_mismatch: rows.json:3: the turns have 2 <bbox> .* but 1 box") as one:
        written(talk("<bbox>", "<bbox>", boxes=[DOG]))
    assert one.value.reason == "media_mismatch"
    with pytest.raises(SkipSample, match="1 <bbox> mark.* but 0 box"):
        written(talk("<bbox>", "dog"))
    with pytest.raises(SkipSample, match="1 <bbox> mark.* but 2 box"):
        written(talk("<bbox>", "dog", boxes=[DOG, CAT]))
    with pytest.raises(SkipSample, match=r"bad_box: rows.json:3: box .* left must not exceed right"):
        written(talk("<bbox>", boxes=[Box((9, 0, 1, 1), SIZE)]))


def test_marks_that_were_typed_are_only_words() -> None:
    typed = "what does <bbox> mean?"
    sample = talk(escape_marks(typed), escape_boxes("a <bbox>, not an <image>"))
    assert written(sample) is sample
    assert [unescape_marks(text) for text in texts(sample)] == [typed, "a <bbox>, not an <image>"]
    assert "<image>" in texts(sample)[1]  # of an answer only boxes are places
    mixed = talk(escape_marks(typed) + "<bbox>", boxes=[DOG])
    assert unescape_marks(texts(written(mixed))[0]) == "what does <bbox> mean?{<10><10><50><50>}"


def test_a_box_is_written_where_the_model_sees_it() -> None:
    left = cropped(SIZE, (0, 0, 40, 40)).then(resized((40, 40), (64, 64)))
    sample = talk("where?", "<bbox>", boxes=[DOG])
    assert texts(written(sample, [left]))[1] == "{<20><10><100><50>}"
    assert texts(written(sample, [left.then(flipped((64, 64)))]))[1] == "{<0><10><80><50>}"
    box = padded(SIZE, (80, 80), (0, 20))
    assert texts(written(sample, [box]))[1] == "{<10><30><50><50>}"
    assert texts(written(sample, [resized(SIZE, (64, 64))])) == texts(written(sample))
    assert seen(Box((0, 0, 80, 40), SIZE), left) == Box((0, 0, 64, 64), (64, 64))  # cut off at the frame
    relative = replace(sample, boxes=[Box((80, 40, 400, 200), (800, 400))])  # a size of which the file is a tenth
    assert texts(written(relative, [left])) == texts(written(sample, [left]))


def test_a_box_out_of_sight_is_refused_and_so_is_one_without_a_picture() -> None:
    right = cropped(SIZE, (60, 0, 80, 40))
    with pytest.raises(BoxError) as caught:
        seen(DOG, right)
    assert caught.value.reason == "range"
    with pytest.raises(SkipSample, match="bad_box.*outside of what the model sees"):
        written(talk("<bbox>", boxes=[DOG]), [right])
    with pytest.raises(SkipSample, match="bad_box.*lies in picture 2, but 1 came"):
        written(talk("<bbox>", boxes=[replace(DOG, image=1)]), [right])


def test_boxes_that_came_as_text_are_lifted_with_the_picture_they_stand_behind() -> None:
    media = [Media(name="one"), Media(name="two")]
    sample = talk(
        "<image>a{<1><2><3><4>}<image>b{ <5> <6> <7> <8> }", "<bbox> or {<9><9><9><10>}", boxes=[DOG], images=media
    )
    found = lifted(sample)
    assert texts(found) == ["<image>a<bbox><image>b<bbox>", "<bbox> or <bbox>"]
    assert [(box.image, box.xyxy) for box in found.boxes] == [
        (0, (1, 2, 3, 4)),
        (1, (5, 6, 7, 8)),
        (0, DOG.xyxy),
        (1, (9, 9, 9, 10)),
    ]
    assert texts(written(found))[1] == "{<10><10><50><50>} or {<9><9><9><10>}"
    assert texts(lifted(talk("{<9><1><2><3>} {a} {<1><2>}"))) == ["{<9><1><2><3>} {a} {<1><2>}"]


def test_boxes_of_the_first_turns_are_the_first_boxes() -> None:
    sample = talk("<bbox>?", "dog", "and?", "<bbox><bbox>", boxes=[DOG, CAT, DOG])
    assert cut_boxes(sample, sample.turns[:2]) == [DOG]
    assert cut_boxes(talk("?", "dog", boxes=[CAT]), []) == [CAT]  # no marks: they are for scoring


def test_an_answer_comes_back_to_the_original_picture() -> None:
    rng = random.Random(3)
    for _ in range(200):
        size = (rng.randint(200, 900), rng.randint(200, 900))
        side, longer = 448, max(size)
        inner = (round(size[0] * side / longer), round(size[1] * side / longer))
        at = ((side - inner[0]) // 2, (side - inner[1]) // 2)
        frame = resized(size, inner).then(padded(inner, (side, side), at))
        x, y = sorted(rng.uniform(0, size[0]) for _ in range(2)), sorted(rng.uniform(0, size[1]) for _ in range(2))
        box = Box((x[0], y[0], x[1], y[1]), size)
        said = texts(written(talk("?", "it is <bbox>", boxes=[box]), [frame]))[1]
        (grid,) = parse_boxes(in_original_frame(said, frame))
        for was, is_ in zip(box.xyxy, to_pixels(grid, size).xyxy, strict=True):
            assert abs(was - is_) <= 0.01 * longer  # half a line of either grid


def test_only_boxes_are_moved_back_and_padding_is_cut_off() -> None:
    frame = padded(SIZE, (80, 80), (0, 20))
    assert in_original_frame("{<0><0><100><100>} and {<1><2>} {<9><2><3><4>} {<1><2><3><400>}", frame) == (
        "{<0><0><100><100>} and {<1><2>} {<9><2><3><4>} {<1><2><3><400>}"
    )
    assert in_original_frame("<p>dog</p> {<10><30><50><50>}", frame) == "<p>dog</p> {<10><10><50><50>}"
    assert in_original_frame("{ <1><2><3><4> }", resized(SIZE, (64, 64))) == "{ <1><2><3><4> }"
    assert in_original_frame("{ <1><2><3><4> }", None) == "{ <1><2><3><4> }"


def test_an_answer_is_about_the_picture_of_the_true_boxes_else_the_last() -> None:
    frames = [padded(SIZE, (80, 80), (0, 20)), flipped(SIZE)]
    assert answered_about(talk("?", boxes=[DOG]), frames) is frames[0]
    assert answered_about(talk("?"), frames) is frames[1]
    assert answered_about(talk("?", boxes=[DOG, replace(CAT, image=1)]), frames) is frames[1]
    assert answered_about(talk("?", boxes=[DOG]), []) is None


def picture(size: tuple[int, int] = SIZE) -> Media:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return Media(data=file.getvalue(), name="p.png")


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Callable[..., SampleEncoder]:
    """`encoder(profile="default", **options of image_augment)`; without options the plain processor."""

    def make(profile: Any = "default", **options: Any) -> SampleEncoder:
        name = "image_augment" if options else "blip2_image_eval"
        look = registry.build(Part("processor", name, {"image_size": 16, **options}))
        return open_encoder(tokenizer, load_template("toy", profile), {"image": 4}, {"image": look}, 120)

    return make


def learned(encoder: SampleEncoder, example: Any) -> str:
    return encoder.tokenizer.decode(example.labels[example.labels != IGNORE]).removesuffix("</s>").strip()


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_marks_and_written_boxes_encode_to_the_same_ids(encoder: Callable[..., SampleEncoder], profile: str) -> None:
    marked = talk("<image>what is <bbox>?", "a dog at <bbox>", boxes=[DOG, CAT], images=[picture()])
    plain = replace(marked, turns=written(marked).turns)
    one = encoder(profile)
    for encode in (one.example, one.prompt):
        first, second = encode(marked, RNG), encode(plain, RNG)
        assert first.input_ids.tolist() == second.input_ids.tolist()
        assert first.labels.tolist() == second.labels.tolist()
        assert texts(first.sample) == texts(plain) and first.geometries == []


@pytest.mark.parametrize("profile", ["default", "compat"])
def test_a_letterbox_is_answered_in_its_own_frame_and_read_back(
    encoder: Callable[..., SampleEncoder], profile: str
) -> None:
    one = encoder(profile, keep_aspect="pad")
    marked = talk("<image>where is the dog?", "<bbox>", boxes=[DOG], images=[picture()])
    typed = talk("<image>where is the dog?", "{<10><10><50><50>}", boxes=[DOG], images=[picture()])
    for sample in (marked, typed):
        example = one.example(sample, RNG)
        assert learned(one, example) == "{<10><30><50><50>}"
        assert texts(example.sample)[1] == "{<10><10><50><50>}"  # of the original picture
        assert in_original_frame(learned(one, example), example.geometries[0]) == "{<10><10><50><50>}"


def test_a_prompt_s_frame_is_that_of_its_last_question_and_its_history_keeps_the_pictures_of_its_answers(
    encoder: Callable[..., SampleEncoder],
) -> None:
    one = encoder(keep_aspect="pad")
    words = ("<image><image>where is <bbox>?", "{<10><10><50><50>}", "and <bbox>?", "")
    first, second = DOG, replace(CAT, xyxy=(8, 4, 20, 20), image_size=(40, 80), image=1)
    for boxes in ([first, second], [second, first]):
        sample = talk(*words, boxes=boxes, images=[picture(), picture((40, 80))])
        example = one.prompt(sample, RNG)
        assert example.frame is example.geometries[boxes[1].image]
        said = "{<10><30><50><50>}" if boxes[0] is first else "{<30><10><50><50>}"
        assert said in one.tokenizer.decode([i for i in example.input_ids.tolist() if i >= 0]).split("and")[0]
    assert encoder().prompt(sample, RNG).frame is None


def test_a_flip_or_a_crop_moves_the_learned_box_with_the_picture(encoder: Callable[..., SampleEncoder]) -> None:
    sample = talk("<image>where is the dog?", "<bbox>", boxes=[DOG], images=[picture()])
    flipping = encoder(flip=1.0)
    assert learned(flipping, flipping.example(sample, RNG)) == "{<50><10><90><50>}"
    cropping = encoder(crop_scale=[0.3, 0.9], min_visible=0.3)
    said = {learned(cropping, cropping.example(sample, random.Random(seed))) for seed in range(8)}
    assert len(said) > 4
    for seed in range(8):
        example = cropping.example(sample, random.Random(seed))
        (frame,) = example.geometries
        (grid,) = parse_boxes(learned(cropping, example))
        back = frame.inverse(to_pixels(grid, (16, 16)).xyxy)
        visible = frame.inverse(frame.visible(DOG.xyxy))  # type: ignore[arg-type]
        assert back == pytest.approx(visible, abs=0.51)  # half a line of a grid over at most the whole picture


def test_a_prompt_s_picture_does_not_depend_on_the_true_answer(encoder: Callable[..., SampleEncoder]) -> None:
    one = encoder(keep_aspect="crop")
    edge = Box((0, 0, 8, 40), SIZE)  # lost when the centre is cut out
    asked, other = (talk("<image>where?", "<bbox>", boxes=[box], images=[picture()]) for box in (edge, DOG))
    assert one.prompt(asked, RNG).geometries == one.prompt(other, RNG).geometries
    assert one.example(asked, RNG).geometries != one.example(other, RNG).geometries
    with pytest.raises(SkipSample, match="outside of what the model sees"):
        one.prompt(talk("<image>what is <bbox>?", "x", boxes=[edge], images=[picture()]), RNG)


def test_a_conversation_without_its_last_answer_keeps_the_boxes_of_the_rest(
    encoder: Callable[..., SampleEncoder],
) -> None:
    sample = talk("<image>a <bbox>?", "<bbox>", "and?", "<bbox>", boxes=[DOG, CAT, DOG], images=[picture()])
    one = encoder(flip=1.0)
    text = one.tokenizer.decode([i for i in one.prompt(sample, RNG).input_ids.tolist() if i >= 0])
    assert "a {<50><10><90><50>}?" in text and "{<0><50><50><100>}" in text and text.count("{") == 2
    with pytest.raises(SkipSample, match="3 <bbox> mark.* but 2 box"):
        one.prompt(replace(sample, boxes=[DOG, CAT]), RNG)

"""Whatever a processor crops or pads: a person's boxes and those of answers are those of the picture that was sent."""

import io
import json
import random
from typing import Any

import pytest
from PIL import Image

from minigpt4o.common.registry import Part
from minigpt4o.conversation.sample import Box, Media
from minigpt4o.models.answer import Answer
from minigpt4o.processors.geometry import cropped, padded
from minigpt4o.serve.engine_boxes import Returning
from minigpt4o.serve.inference import open_chat
from minigpt4o.serve.inferencer import Inferencer

WIDE = (80, 40)  # laid on a square it fills the middle half of it; cropped, its middle half is the square
PAD = Part("processor", "image_augment", {"image_size": 16, "keep_aspect": "pad"})
CROP = Part("processor", "image_augment", {"image_size": 16, "keep_aspect": "crop"})
SAID, MEANT = "{<10><30><50><50>}", "{<10><10><50><50>}"  # what the model says of a padded picture, and where it is

TAKE = Answer.add


def picture(size: tuple[int, int] = WIDE) -> Media:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, "PNG")
    return Media(data=file.getvalue(), name="wide.png")


@pytest.fixture
def say(monkeypatch):
    """Make the model say a text, token by token, whatever it was going to say."""

    def give(model: Any, text: str) -> None:
        words = iter(model.tokenizer(text, add_special_tokens=False)["input_ids"])

        def add(answer: Answer, token: int) -> None:
            word = next(words, None)
            if word is None:
                answer.finish()
            else:
                TAKE(answer, word)

        monkeypatch.setattr(Answer, "add", add)

    return give


def sent_words(session: Any) -> str:
    return session.model.tokenizer.decode([i for i in session.last.prompt_ids if i >= 0])


@pytest.fixture
def padded_chat(tiny_model, make_config):
    return open_chat(tiny_model, make_config(vis_processor=PAD, max_new_tokens=60, min_new_tokens=0))


def test_an_answers_box_is_that_of_the_picture_sent_and_its_next_prompt_says_what_the_model_said(
    padded_chat, say
) -> None:
    say(padded_chat.model, f"there: {SAID} and <p>it</p> {SAID}.")
    pieces = list(padded_chat.ask("where?", images=[picture()]))
    assert len(pieces) > 3
    assert padded_chat.exchanges[0].answer == "".join(pieces) == f"there: {MEANT} and <p>it</p> {MEANT}."
    assert padded_chat.last.text == padded_chat.exchanges[0].answer
    list(padded_chat.ask("sure?"))
    assert f"there: {SAID} and <p>it</p> {SAID}." in sent_words(padded_chat)
    assert json.loads(padded_chat.to_json())["turns"][0]["answer"] == f"there: {MEANT} and <p>it</p> {MEANT}."


def test_a_box_a_person_draws_or_types_is_told_in_the_frame_the_model_sees(padded_chat) -> None:
    list(padded_chat.ask("what is this?", images=[picture()], boxes=[Box((8, 4, 40, 20), WIDE)]))
    assert SAID in sent_words(padded_chat)
    list(padded_chat.ask(f"and here: {MEANT}?"))
    assert f"and here: {SAID}?" in sent_words(padded_chat)


def test_an_answer_is_about_the_picture_of_the_last_question(padded_chat, say) -> None:
    list(padded_chat.ask("what is this?", images=[picture()], boxes=[Box((8, 4, 40, 20), WIDE)]))
    say(padded_chat.model, SAID)
    assert "".join(padded_chat.ask("where?", images=[picture((40, 40))])) == SAID
    say(padded_chat.model, SAID)
    again = padded_chat.ask("and beside it?", boxes=[Box((8, 4, 40, 20), WIDE)])
    assert "".join(again) == MEANT


def test_a_whole_picture_changes_no_letter(make_session, say) -> None:
    session = make_session(max_new_tokens=60, min_new_tokens=0)
    say(session.model, "{ <1><2><3><4> } {<5>")
    assert "".join(session.ask("where?", images=[picture()])) == "{ <1><2><3><4> } {<5>"


@pytest.mark.parametrize("frame", [padded(WIDE, (80, 80), (0, 20)), cropped(WIDE, (20, 0, 60, 40))])
def test_boxes_that_come_in_pieces_are_moved_as_those_that_come_at_once(frame) -> None:
    from minigpt4o.conversation.objects import in_original_frame

    text = f"a {SAID}{SAID} b {{<1><2>}} {{ }} {{<9><9><1><1>}} {{x {{<10>{{<10><30><50><50>}} {{{'<' * 90} {{<10><3"
    for seed in range(20):
        draw, returning, found, at = random.Random(seed), Returning(frame), "", 0
        while at < len(text):
            step = draw.randrange(1, 9)
            found += returning.more(text[at : at + step])
            at += step
        assert found + returning.rest() == in_original_frame(text, frame)


def test_inference_model_moves_boxes_both_ways(tiny_model, say, monkeypatch) -> None:
    monkeypatch.setattr("minigpt4o.serve.inferencer.image_processors", lambda settings, model: {"eval": CROP})
    asks = Inferencer(tiny_model, task="vqa")
    prompts = []
    monkeypatch.setattr(asks.model, "_batch", _spied(asks.model._batch, prompts))
    asks.asked = type(asks.asked)({"": "{}"}, 60, boxes=True)
    say(tiny_model, "{<0><0><50><50>}")
    (found,) = asks(picture().data, "what is in {<25><0><50><50>}?")
    assert "{<0><0><50><50>}?" in prompts[0]
    assert found["pred_answer"] == "{<25><0><50><50>}"
    assert found["pred_bboxes"] == [(20.0, 0.0, 40.0, 20.0)]


def _spied(batch: Any, prompts: list[str]) -> Any:
    def spy(examples: Any, side: str) -> Any:
        made = batch(examples, side)
        prompts.extend(spy.words(row) for row in made.input_ids)
        return made

    owner = batch.__self__
    spy.words = lambda row: owner.aligned.tokenizer.decode([i for i in row.tolist() if i >= 0])  # type: ignore[attr-defined]
    return spy

"""Claims about answering for harnesses: the same as the chat's answers, in any batches; bad media are counted."""

from __future__ import annotations

import pytest

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Media
from minigpt4o.serve.harness.answering import Answerer
from minigpt4o.serve.harness.requests import sample_of

SHORT = Decoding(max_new_tokens=8)


@pytest.fixture
def answerer(make_session) -> Answerer:
    chat = make_session()
    return Answerer(chat.model, chat.encoder)


@pytest.fixture
def samples(picture, sound) -> list:
    parts = [
        [("image", picture), ("text", "what is there?")],
        [("text", "what is there?")],
        [("image", picture), ("text", "and"), ("image", picture), ("text", "a small red circle?")],
        [("audio", sound), ("text", "what is there? " * 3)],
        [("image", picture), ("audio", sound), ("text", "小さな赤い丸")],
    ]
    return [sample_of(f"task/{i}", [("user", given)]) for i, given in enumerate(parts)]


def test_an_answer_is_the_one_the_chat_gives(answerer, make_session, picture, sound):
    chat = make_session(max_new_tokens=8, min_new_tokens=0)
    said = "".join(chat.ask("what is there?", [picture], [sound])).strip()
    parts = [("image", picture), ("audio", sound), ("text", "what is there?")]
    assert answerer.answer([sample_of("task/0", [("user", parts)])], SHORT) == [said]
    assert said


def test_answers_do_not_depend_on_the_batch(answerer, samples):
    together = answerer.answer(samples, SHORT)
    assert together == [answerer.answer([sample], SHORT)[0] for sample in samples]
    assert len(set(together)) > 1


def test_limits_and_stop_strings_are_kept(answerer, samples):
    long = answerer.answer(samples[:1], Decoding(max_new_tokens=20))[0]
    stop = long[len(long) // 2]
    assert answerer.answer(samples[:1], Decoding(max_new_tokens=20), [stop])[0] == long.split(stop)[0].strip()
    assert len(answerer.answer(samples[:1], Decoding(max_new_tokens=1))[0]) < len(long)


def test_a_medium_that_cannot_be_opened_is_an_empty_answer_and_is_counted(answerer, samples, caplog):
    bad = sample_of("task/9", [("user", [("image", Media(data=b"no picture", name="x.png")), ("text", "what?")])])
    good = answerer.answer(samples[:1], SHORT)
    assert answerer.answer([bad, samples[0]], SHORT) == ["", *good]
    assert dict(answerer.skipped) == {"unreadable_image": 1}
    assert "x.png" in caplog.text
    with pytest.raises(DataError, match="x.png"):
        answerer.likelihoods([bad], [["yes"]])


def test_a_prompt_without_room_is_counted_too(answerer):
    endless = sample_of("task/0", [("user", [("text", "what is there? " * 200)])])
    assert answerer.answer([endless], SHORT) == [""]
    assert dict(answerer.skipped) == {"too_long": 1}


def test_likelihoods_do_not_depend_on_the_batch(answerer, samples):
    given = [["red", "a small circle"], ["0123"], ["left", "top", "there"], ["x"], ["赤い"]]
    together = answerer.likelihoods(samples, given)
    for sample, answers, row in zip(samples, given, together, strict=True):
        alone = answerer.likelihoods([sample], [answers])[0]
        assert [one.total for one in row] == pytest.approx([one.total for one in alone], abs=1e-4)


def test_a_model_without_a_processor_for_a_kind_says_what_it_takes(answerer, samples):
    del answerer.encoder.processors["audio"]
    with pytest.raises(DataError, match=r"task/3: the task sends audio.*set up for image"):
        answerer.answer(samples, SHORT)


def test_a_yaml_opens_as_in_the_demo(demo_yaml, samples):
    opened = Answerer.open(demo_yaml, device="cpu")
    assert set(opened.encoder.processors) == {"image", "audio"}
    assert len(opened.answer(samples, SHORT)) == len(samples)


@pytest.mark.parametrize(("path", "word"), [("", "no model is named"), ("nowhere/run", "nowhere/run")])
def test_what_cannot_be_opened_is_named(path, word):
    with pytest.raises((ConfigError, ValueError), match=word):
        Answerer.open(path)

"""A chat sends what training saw, keeps its history, and answers every bad input with a sentence."""

import copy
import json
import random
from contextlib import closing

import pytest
import torch

from minigpt4o.conversation.batch import AUDIO_SLOT, IMAGE_SLOT
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.serve.chat import ChatError
from minigpt4o.serve.limits import sort_media


def sent(session, monkeypatch) -> list:
    """Every prompt the model is given from now on."""
    prompts = []
    make = session.engine._prompts.make

    def spy(sample):
        prompt = make(sample)
        prompts.append(copy.copy(prompt))  # the engine lets its media go when the answer is there
        return prompt

    monkeypatch.setattr(session.engine._prompts, "make", spy)
    return prompts


def say(session, text="", **media) -> str:
    return "".join(session.ask(text, **media))


def test_what_the_chat_sends_is_a_prefix_of_what_training_sees(make_session, monkeypatch, picture, sound) -> None:
    session = make_session()
    prompts = sent(session, monkeypatch)
    first = say(session, "what is there?", images=[picture])
    say(session, "and what is to be heard?", audios=[sound])
    turns = [
        Turn("user", "<image>what is there?"),
        Turn("assistant", first),
        Turn("user", "<audio>and what is to be heard?"),
        Turn("assistant", "a tone"),
    ]
    session.encoder.max_txt_len = 1000
    learned = session.encoder.example(Sample("x", turns, [picture], [sound]), random.Random(0))
    prompt = prompts[-1]
    assert prompt.ids == learned.input_ids[: len(prompt.ids)].tolist()
    for kind, opened in (("image", learned.images), ("audio", learned.audios)):
        (medium,) = prompt.media[kind]
        with torch.no_grad():
            assert medium.features.allclose(session.model.soft_tokens(kind, opened[0][None])[0], atol=1e-6)


def test_the_answer_comes_in_pieces_and_becomes_history(make_session, picture) -> None:
    session = make_session()
    pieces = list(session.ask("hello", images=[picture]))
    assert len(pieces) > 1
    assert session.exchanges[0].answer == "".join(pieces)
    say(session, "and now?")
    assert [e.text for e in session.exchanges] == ["hello", "and now?"]
    session.reset()
    assert session.exchanges == []


def test_text_alone_is_a_chat_too(make_session, monkeypatch) -> None:
    session = make_session()
    prompts = sent(session, monkeypatch)
    assert say(session, "hello")
    assert prompts[0].media == {"image": [], "audio": []}
    assert min(prompts[0].ids) >= 0


def test_marks_and_special_tokens_a_person_types_are_only_words(make_session, monkeypatch, picture) -> None:
    session = make_session()
    prompts = sent(session, monkeypatch)
    special = set(session.model.tokenizer.get_added_vocab().values())

    def specials() -> int:
        return sum(i in special for i in prompts[-1].ids)

    say(session, "plain", images=[picture])
    before = specials()
    session.reset()
    say(session, "<image> <audio> </s> <assistant> <user> <Img>", images=[picture])
    ids = prompts[-1].ids
    assert ids.count(IMAGE_SLOT) == session.encoder.slots["image"]
    assert ids.count(AUDIO_SLOT) == 0
    assert specials() == before
    assert "<image> <audio> </s>" in session.model.tokenizer.decode([i for i in ids if i >= 0])


def test_a_chat_longer_than_the_context_loses_old_words_with_a_note_but_no_picture(
    make_session, monkeypatch, picture
) -> None:
    session = make_session(context=120)
    prompts = sent(session, monkeypatch)
    say(session, "the very first question, about this picture", images=[picture])
    assert session.note == ""
    for number in range(12):
        say(session, f"question {number}")
    assert "oldest" in session.note
    assert "pictures" in session.note
    for prompt in prompts:
        assert len(prompt.ids) <= 120 - session.decoding.max_new_tokens
        assert len(prompt.media["image"]) == 1
    words = session.model.tokenizer.decode([i for i in prompts[-1].ids if i >= 0])
    assert "very first" not in words
    assert "question 11" in words


def test_a_message_that_can_never_fit_is_refused_and_the_chat_goes_on(make_session, picture) -> None:
    session = make_session(context=120)
    with pytest.raises(ChatError, match=r"shorten"):
        say(session, "word " * 400)
    for _ in range(2):
        say(session, "look", images=[picture] * 8)
    with pytest.raises(ChatError, match=r"too long.*fewer files"):
        say(session, "look", images=[picture] * 8)
    assert len(session.exchanges) == 2
    assert say(session.fresh(), "hello")


def test_stopping_keeps_what_was_said_and_the_next_question_works(make_session) -> None:
    session = make_session(max_new_tokens=100, min_new_tokens=100)
    pieces = session.ask("tell me a long story")
    first = next(pieces)
    session.stop()
    rest = "".join(pieces)
    assert session.exchanges[0].answer == first + rest
    assert len(session.model.tokenizer(first + rest)["input_ids"]) < 100
    assert say(session, "go on")


def test_a_listener_who_leaves_ends_the_generation(make_session) -> None:
    session = make_session(max_new_tokens=100, min_new_tokens=100)
    with closing(session.ask("tell me a long story")) as pieces:
        next(pieces)
    assert session.last.result().startswith(session.exchanges[0].answer)
    assert session.last.finish_reason == "cancelled"
    assert session.last.answer_tokens < 100
    assert session.engine.stats().cancelled == 1


def test_sessions_do_not_see_each_other(make_session, picture) -> None:
    one = make_session()
    two = one.fresh()
    say(one, "my secret", images=[picture])
    assert two.exchanges == []
    assert two.model is one.model


def test_a_failure_while_generating_is_told_politely_and_leaves_the_chat_usable(make_session, monkeypatch) -> None:
    session = make_session()

    def out_of_memory(*args):
        raise MemoryError("/secret/path")

    with monkeypatch.context() as broken:
        broken.setattr(session.model.llm, "hidden", out_of_memory)
        with pytest.raises(ChatError, match="not enough memory") as caught:
            say(session, "hello")
    assert "/secret" not in str(caught.value)
    assert session.exchanges == []
    assert say(session, "hello")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("program.png", "no picture or sound"),
        ("empty.png", "empty"),
        ("huge.png", "3000 x 3000 pixels"),
        ("long.wav", "lasts 3 seconds"),
        ("nowhere.png", "no such file"),
    ],
)
def test_files_are_judged_by_their_content_before_they_are_decoded(make_session, files, tmp_path, name, words) -> None:
    limits = make_session(max_image_pixels=1_000_000, max_audio_seconds=1.0).limits
    with pytest.raises(ChatError, match=words) as caught:
        sort_media([tmp_path / name], limits)
    assert str(tmp_path) not in str(caught.value)


def test_a_damaged_picture_is_told_when_it_is_opened(make_session, files) -> None:
    session = make_session()
    images, _ = sort_media([files["cut.png"]], session.limits)
    with pytest.raises(ChatError, match=r"cannot be read.*cut\.png"):
        say(session, "what is this?", images=images)
    assert session.exchanges == []


def test_pictures_and_sounds_are_told_apart_whatever_they_are_called(make_session, files, tmp_path) -> None:
    (tmp_path / "tone.png").write_bytes(files["tone.wav"].read_bytes())
    images, audios = sort_media([tmp_path / "tone.png", files["red.png"]], make_session().limits)
    assert [str(m) for m in images] == ["red.png"]
    assert [str(m) for m in audios] == ["tone.png"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"text": "x" * 60}, "60 characters"),
        ({"text": "\ud800"}, "broken"),
        ({"text": " "}, "write something"),
        ({"text": "x", "images": ["picture"] * 3}, "3 files"),
        ({"text": "x", "images": ["sound"]}, "not one of the pictures"),
        ({"text": "x", "images": [Media(data=b"", name="nothing.png")]}, "empty"),
    ],
)
def test_a_message_beyond_the_limits_is_refused(make_session, request, message, words) -> None:
    session = make_session(max_text_chars=50, max_files=2)
    images = [request.getfixturevalue(m) if isinstance(m, str) else m for m in message.get("images", [])]
    with pytest.raises(ChatError, match=words):
        say(session, message["text"], images=images)
    assert session.exchanges == []


def test_a_model_or_chat_without_ears_says_so(make_session, sound) -> None:
    session = make_session(audio_processor=None)
    with pytest.raises(ChatError, match="not set up for sounds"):
        say(session, "listen", audios=[sound])


def test_the_last_question_can_be_taken_back_and_asked_again(make_session, picture) -> None:
    session = make_session()
    say(session, "what is there?", images=[picture])
    answer = say(session, "and now?")
    undone = session.undo()
    assert (undone.text, undone.answer) == ("and now?", answer)
    assert [e.text for e in session.exchanges] == ["what is there?"]
    assert say(session, "and now?") == answer
    assert "".join(session.retry()) == answer  # greedy
    assert [e.answer for e in session.exchanges][1:] == [answer]
    session.undo(), session.undo()
    assert session.undo() is None and session.exchanges == []
    with pytest.raises(ChatError, match="Nothing was asked"):
        next(session.retry())


def test_a_sampled_answer_is_another_one_when_asked_again_and_the_same_when_typed_again(make_session) -> None:
    session = make_session(do_sample=True, temperature=1.5, min_new_tokens=12)
    first = say(session, "hello")
    again = "".join(session.retry())
    third = "".join(session.retry())
    assert len({first, again, third}) == 3
    session.undo()
    assert say(session, "hello") == first


def test_an_earlier_question_is_asked_in_other_words_with_its_files(make_session, picture, monkeypatch) -> None:
    session = make_session()
    for number in range(3):
        say(session, f"question {number}", images=[picture] if number == 1 else [])
    prompts = sent(session, monkeypatch)
    "".join(session.edit(1, "in other words"))
    assert [e.text for e in session.exchanges] == ["question 0", "in other words"]
    assert session.exchanges[1].images == [picture] and len(prompts[0].media["image"]) == 1
    for number in (-1, 2):
        with pytest.raises(ChatError, match="no message"):
            next(session.edit(number, "x"))
    with pytest.raises(ChatError):
        next(session.edit(0, "x" * 30_000))
    assert len(session.exchanges) == 2


def test_an_answer_that_fails_leaves_the_chat_as_it_was(make_session, monkeypatch) -> None:
    session = make_session()
    say(session, "one"), say(session, "two")
    before = [(e.text, e.answer) for e in session.exchanges]

    def fails(*args):
        raise RuntimeError

    for act in (lambda: session.ask("three"), session.retry, lambda: session.edit(0, "other")):
        with monkeypatch.context() as broken:
            broken.setattr(session.model.llm, "hidden", fails)
            with pytest.raises(ChatError, match="could not be generated"):
                list(act())
        assert [(e.text, e.answer) for e in session.exchanges] == before


def test_a_chat_is_saved_and_gone_on_with(make_session, picture, sound) -> None:
    session = make_session(do_sample=True, seed=5)
    say(session, "丸 <image> & what?", images=[picture, picture], audios=[sound])
    say(session, "and now?")
    saved = session.to_json()
    json.loads(saved)
    other = make_session()
    assert other.from_json(saved) is other
    assert other.exchanges == session.exchanges and other.decoding == session.decoding and other.note == ""
    assert say(other, "go on") == say(session, "go on")
    assert other.to_json() == session.to_json()


def test_a_chat_of_another_model_is_opened_with_a_note(make_session) -> None:
    session = make_session()
    say(session, "hello")
    tree = json.loads(session.to_json())
    tree["model"]["fingerprint"] = "other"
    assert "another model" in session.fresh().from_json(json.dumps(tree)).note


def changed(**values):
    def change(tree):
        tree.update(values)

    return change


def in_turn(**values):
    def change(tree):
        tree["turns"][0].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(format="other"), "no saved chat"),
        (changed(version=9), "another form"),
        (changed(turns="many"), "no turns"),
        (changed(turns=[3]), "turn 1"),
        (changed(turns=[{}] * 20_000), "far too many"),
        (changed(decoding={"seed": "x"}), "seed"),
        (changed(decoding={"exec": 1}), "damaged"),
        (changed(decoding={"num_beams": 10**6}), "1000000 beams"),
        (changed(decoding={"max_new_tokens": 0}), "max_new_tokens"),
        (in_turn(text=5), "its words"),
        (in_turn(text="x" * 30_000), "30000 characters"),
        (in_turn(attempt=-1), "its words"),
        (in_turn(images=5), "images"),
        (in_turn(images=[{"name": "x", "data": "*"}]), "base64"),
        (in_turn(images=[{"name": "../../etc/x.png", "data": "aGVsbG8="}]), r"^x\.png is no picture"),
        (in_turn(images=[{"name": "x", "data": "aGVsbG8="}] * 99), "99 files"),
        (in_turn(audios=[{"name": "a.png", "data": None}]), "damaged"),
    ],
)
def test_a_file_that_is_no_chat_is_refused_and_changes_nothing(make_session, change, words) -> None:
    session = make_session()
    say(session, "hello")
    tree = json.loads(session.to_json())
    change(tree)
    before = session.to_json()
    with pytest.raises(ChatError, match=words):
        session.from_json(json.dumps(tree))
    assert session.to_json() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe", "[" * 100_000, '{"format": "minigpt4o-chat"}'])
def test_what_is_not_even_a_saved_chat_is_refused(make_session, text) -> None:
    with pytest.raises(ChatError):
        make_session().from_json(text)


def test_a_sound_that_is_cut_is_said_so(make_session, sound) -> None:
    session = make_session()  # it hears 0.12 of the 0.2 seconds
    say(session, "hello")
    assert session.note == ""
    say(session, "what is to be heard?", audios=[sound, sound])
    assert "0.2 seconds were cut" in session.note
    assert session.last.lost_seconds == pytest.approx([0.08, 0.08])
    say(session, "and now?")
    assert session.note == ""

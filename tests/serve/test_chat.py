"""A chat sends what training saw, keeps its history, and answers every bad input with a sentence."""

import random
import threading
from contextlib import closing

import pytest

from minigpt4o.conversation.batch import AUDIO_SLOT, IMAGE_SLOT
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.serve.chat import ChatError
from minigpt4o.serve.limits import sort_media


def sent(session, monkeypatch) -> list:
    """Every batch the model is given from now on."""
    batches = []
    generate = session.model.generate

    def spy(batch, *rest):
        batches.append(batch)
        return generate(batch, *rest)

    monkeypatch.setattr(session.model, "generate", spy)
    return batches


def say(session, text="", **media) -> str:
    return "".join(session.ask(text, **media))


def test_what_the_chat_sends_is_a_prefix_of_what_training_sees(make_session, monkeypatch, picture, sound) -> None:
    session = make_session()
    batches = sent(session, monkeypatch)
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
    prompt = batches[-1].input_ids[0]
    assert prompt.tolist() == learned.input_ids[: len(prompt)].tolist()
    assert batches[-1].images.equal(learned.images[0][None])
    assert batches[-1].audios.equal(learned.audios[0][None])


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
    batches = sent(session, monkeypatch)
    assert say(session, "hello")
    assert batches[0].images is None
    assert batches[0].audios is None


def test_marks_and_special_tokens_a_person_types_are_only_words(make_session, monkeypatch, picture) -> None:
    session = make_session()
    batches = sent(session, monkeypatch)
    special = set(session.model.tokenizer.get_added_vocab().values())

    def specials() -> int:
        return sum(i in special for i in batches[-1].input_ids[0].tolist())

    say(session, "plain", images=[picture])
    before = specials()
    session.reset()
    say(session, "<image> <audio> </s> <assistant> <user> <Img>", images=[picture])
    ids = batches[-1].input_ids[0].tolist()
    assert ids.count(IMAGE_SLOT) == session.encoder.slots["image"]
    assert ids.count(AUDIO_SLOT) == 0
    assert specials() == before
    assert "<image> <audio> </s>" in session.model.tokenizer.decode([i for i in ids if i >= 0])


def test_a_chat_longer_than_the_context_loses_old_words_with_a_note_but_no_picture(
    make_session, monkeypatch, picture
) -> None:
    session = make_session(context=120)
    batches = sent(session, monkeypatch)
    say(session, "the very first question, about this picture", images=[picture])
    assert session.note == ""
    for number in range(12):
        say(session, f"question {number}")
    assert "oldest" in session.note
    assert "pictures" in session.note
    for batch in batches:
        assert batch.input_ids.shape[1] <= 120 - session.decoding.max_new_tokens
        assert batch.images.shape[0] == 1
    words = session.model.tokenizer.decode([i for i in batches[-1].input_ids[0].tolist() if i >= 0])
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
    assert not [t for t in threading.enumerate() if t.name == "chat-generate"]


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
        broken.setattr(session.model, "generate", out_of_memory)
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

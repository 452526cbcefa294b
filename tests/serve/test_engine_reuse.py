"""The next turn of a conversation reads only what is new, and is answered as if everything had been read again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from engine_parts import SteppedEngine, alone, native, picture, sound

from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.conversation.template import load_template
from minigpt4o.serve.chat import ChatSession

DECODING = Decoding(8, min_new_tokens=4)
TEMPLATES = ["toy", "vicuna_v0", "llama2", "minigpt_v2", "rinna_neox", "chatml", "plain", "caption"]


def encoder_of(parts: Any, template: str, profile: Any = "default") -> Any:
    model, encoder = parts
    return open_encoder(model.tokenizer, load_template(template, profile), model.slots, encoder.processors)


@pytest.fixture
def parts(tiny_model: Any, tiny_encoder: Any) -> Any:
    return tiny_model, tiny_encoder


class Talk:
    """A conversation with an engine; every answer is compared with that of the model alone."""

    def __init__(self, model: Any, encoder: Any, session: str = "s", **values: Any) -> None:
        self.engine = SteppedEngine(model, encoder, **values)
        self.model, self.encoder, self.session = model, encoder, session
        self.turns: list[Turn] = []
        self.images: list[Media] = []
        self.audios: list[Media] = []

    def say(self, text: str, decoding: Decoding = DECODING) -> Any:
        self.turns.append(Turn("user", text))
        asked = Sample("t", [*self.turns, Turn("assistant", "")], list(self.images), list(self.audios))
        answering = self.engine.submit(asked, decoding, session=self.session)
        self.engine.finish()
        assert answering.result() == alone(self.model, self.encoder, asked, decoding)
        self.turns.append(Turn("assistant", answering.result()))
        return answering


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_history_is_not_read_again(parts, template) -> None:
    talk = Talk(parts[0], encoder_of(parts, template))
    talk.images = [picture(1)]
    first = talk.say("<image>what is there?")
    assert first.reused_tokens == 0
    talk.audios = [sound(1)]
    second = talk.say("<audio>and here?")
    third = talk.say("so?")
    before = len(first.prompt_ids)
    assert second.reused_tokens >= before - 1  # the words before the answer, at least
    assert third.reused_tokens >= len(second.prompt_ids) - 1
    assert talk.engine.stats().reused_tokens == second.reused_tokens + third.reused_tokens


@pytest.mark.parametrize("template", ["vicuna_v0", "llama2", "minigpt_v2", "rinna_neox"])
def test_prompts_of_the_reference_are_reused_as_far_as_they_are_the_same(parts, template) -> None:
    talk = Talk(parts[0], encoder_of(parts, template, "compat"))
    talk.images = [picture(1)]
    talk.say("<image>what is there?")
    assert talk.say("and here?").reused_tokens > 0


def test_a_window_that_slides_is_gone_on_with_but_not_turned_back(tmp_path) -> None:
    talk = Talk(*native(tmp_path))  # a window of 8 places
    first = talk.say("the first words")
    retold, read = talk.turns[-1].text, [*first.prompt_ids, *first._job.row.tokens[:-1]]
    second = talk.say("and more")
    assert second.reused_tokens == (len(read) if second.prompt_ids[: len(read)] == read else 0)
    talk.turns = [Turn("user", "the first words"), Turn("assistant", retold[:-1] + "x")]
    assert talk.say("other").reused_tokens == 0


def test_a_window_that_has_not_slid_is_turned_back(tmp_path) -> None:
    model, encoder = native(tmp_path)
    for layer in model.whole.config.get_text_config(), model.llm.text.config:
        layer.sliding_window = 200
    talk = Talk(model, encoder)
    talk.images = [picture(1)]
    first = talk.say("<image>the first words")
    assert talk.say("more").reused_tokens >= len(first.prompt_ids) - 1


def test_another_picture_in_the_same_place_is_read_anew(parts) -> None:
    talk = Talk(*parts)
    talk.images = [picture(1)]
    talk.say("<image>what is there?")
    talk.images = [picture(2)]
    second = talk.say("and here?")
    slots = [i for i, token in enumerate(second.prompt_ids) if token < 0]
    assert second.reused_tokens == slots[0]
    talk.images = [picture(2), picture(1)]
    talk.turns[0] = Turn("user", "<image>what is there?<image>")
    assert talk.say("and now?").reused_tokens > slots[-1]


def test_the_same_question_again_reads_one_place(parts) -> None:
    talk = Talk(*parts)
    talk.images = [picture(1)]
    first = talk.say("<image>what is there?", replace(DECODING, do_sample=True, seed=1))
    talk.turns = []
    again = talk.say("<image>what is there?", replace(DECODING, do_sample=True, seed=2))
    assert again.reused_tokens == len(first.prompt_ids) - 1
    assert again.result() != first.result()


def test_an_answer_that_was_given_up_is_gone_on_from(parts) -> None:
    talk = Talk(*parts)
    asked = Sample("t", [Turn("user", "tell me a story"), Turn("assistant", "")])
    answering = talk.engine.submit(asked, Decoding(60, min_new_tokens=60), session="s")
    for _ in range(8):
        talk.engine.turn()
    answering.cancel()
    talk.engine.finish()
    assert answering.finish_reason == "cancelled"
    talk.turns = [Turn("user", "tell me a story"), Turn("assistant", answering.text)]
    assert talk.say("go on").reused_tokens >= len(answering.prompt_ids)


def test_sessions_are_kept_apart(parts) -> None:
    talk = Talk(*parts)
    talk.say("my secret")
    turns = list(talk.turns)
    talk.session = "another"
    assert talk.say("and now?").reused_tokens == 0
    talk.session, talk.turns = "", turns
    assert talk.say("and now?").reused_tokens == 0
    talk.session, talk.turns = "s", turns[:2]
    assert talk.say("and now?").reused_tokens > 0
    talk.engine.forget("s")
    assert talk.say("and then?").reused_tokens == 0


def test_what_is_kept_is_bounded(parts) -> None:
    talk = Talk(*parts, reuse_mb=0)
    talk.say("one")
    assert talk.say("two").reused_tokens == 0
    kept = talk.engine._kept
    assert kept._bytes == 0 and not kept._held
    kept.budget = 50_000
    for number in range(9):
        talk.session, talk.turns = str(number), []
        talk.say("what is there at the left?")
        assert 0 < kept._bytes <= 50_000
    assert 1 < len(kept._held) < 9 and "8" in kept._held and "0" not in kept._held


def test_reuse_does_not_change_what_many_rooms_say_at_once(parts) -> None:
    model, encoder = parts
    engine = SteppedEngine(model, encoder)
    rooms = {name: [Turn("user", f"hello from {name}")] for name in "abcdef"}
    reused = 0
    for turn in range(4):
        answers = {}
        for number, (name, turns) in enumerate(rooms.items()):
            asked = Sample(name, [*turns, Turn("assistant", "")])
            decoding = Decoding(4 + 2 * number, do_sample=number % 2 == 1, seed=turn)
            answers[name] = asked, decoding, engine.submit(asked, decoding, session=name)
            engine.turn()
        engine.finish()
        for name, (asked, decoding, answering) in answers.items():
            assert answering.result() == alone(model, encoder, asked, decoding)
            reused += answering.reused_tokens
            rooms[name] += [Turn("assistant", answering.result()), Turn("user", f"turn {turn}")]
    assert reused == engine.stats().reused_tokens > 200


def test_a_chat_session_reuses_its_history_and_forgets_it_with_a_reset(make_session, picture) -> None:
    session: ChatSession = make_session()
    list(session.ask("what is there?", images=[picture]))
    first = len(session.last.prompt_ids)
    list(session.ask("and now?"))
    assert session.last.reused_tokens >= first - 1
    list(session.retry())
    assert session.last.reused_tokens == len(session.last.prompt_ids) - 1
    list(session.edit(1, "and then?"))
    assert session.last.reused_tokens >= first - 1
    session.reset()
    list(session.ask("what is there?", images=[picture]))
    assert session.last.reused_tokens == 0

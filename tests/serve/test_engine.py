"""An engine answers many at once, and each gets what the model answers alone."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from engine_parts import DECODINGS, SteppedEngine, alone, native, picture, sample

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.serve.engine import Engine, EngineBusy
from minigpt4o.serve.engine_pace import Pace
from minigpt4o.serve.limits import ChatError

LONG = Decoding(100, min_new_tokens=100)


@pytest.fixture(scope="module", params=["aligned", "native"])
def parts(request: pytest.FixtureRequest, tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model and its encoder: a Llama behind encoders, and Minigpt4o."""
    if request.param == "native":
        return native(tmp_path_factory.mktemp("native"))
    return tiny_model, request.getfixturevalue("tiny_encoder")


@pytest.fixture(scope="module")
def wanted(parts: Any) -> list[str]:
    """What 15 samples are answered alone, each in one of five ways."""
    model, encoder = parts
    found = [alone(model, encoder, sample(i), DECODINGS[i % 5]) for i in range(15)]
    assert len(set(found)) > 10
    return found


@pytest.fixture
def engine(tiny_model: Any, tiny_encoder: Any) -> Any:
    made = Engine(tiny_model, tiny_encoder)
    yield made
    made.close()


@pytest.fixture
def stepped(tiny_model: Any, tiny_encoder: Any) -> SteppedEngine:
    return SteppedEngine(tiny_model, tiny_encoder)


def looked_at(number: int) -> Sample:
    return Sample("look", [Turn("user", "<image>what?"), Turn("assistant", "")], [picture(number)])


def question(name: str = "q", text: str = "what is there?") -> Sample:
    return Sample(name, [Turn("user", text), Turn("assistant", "")])


@pytest.mark.parametrize("seed", range(12))
def test_an_answer_does_not_depend_on_what_else_runs(parts, wanted, seed) -> None:
    draw = random.Random(seed)
    engine = SteppedEngine(*parts, max_batch=draw.choice([1, 2, 3, 5, 16]), max_waiting=99, media_cache_mb=seed % 2)
    order = draw.sample(range(15), 15)
    answers, disturbed = {}, []
    while order or len(engine._queue) or engine._worker.groups:
        for _ in range(draw.choice([0, 0, 1, 1, 4])):
            if order:
                number = order.pop()
                answers[number] = engine.submit(sample(number), DECODINGS[number % 5])
                if draw.random() < 0.3:  # somebody who leaves at any time
                    disturbed.append(engine.submit(sample(draw.randrange(99)), LONG))
        if disturbed and draw.random() < 0.2:
            disturbed.pop(draw.randrange(len(disturbed))).cancel()
        if not order and all(a.ended for a in answers.values()):
            for one in disturbed:
                one.cancel()
        engine.turn()
    assert [answers[i].result() for i in range(15)] == wanted
    assert engine.stats().running == engine.stats().waiting == engine.stats().failed == 0
    assert engine.stats().answered >= 15


def test_many_threads_that_ask_at_once_get_their_own_answers(parts, wanted) -> None:
    engine, found = Engine(*parts, max_batch=4), {}

    def ask(number: int) -> None:
        answering = engine.submit(sample(number), DECODINGS[number % 5], session=f"room {number % 3}")
        found[number] = "".join(answering), answering

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i][0] for i in range(15)] == wanted
    assert [found[i][1].text for i in range(15)] == wanted
    engine.close()


def test_a_request_joins_those_that_run(stepped) -> None:
    first = stepped.submit(question(), LONG)
    for _ in range(5):
        stepped.turn()
    second = stepped.submit(question("r", "and here?"), Decoding(3, min_new_tokens=3))
    for _ in range(3):
        stepped.turn()
    assert second.ended and not first.ended
    assert stepped.stats().running == 1
    first.cancel()
    stepped.turn()
    assert first.finish_reason == "cancelled" and stepped.stats().running == 0
    assert first.answer_tokens == 9  # two in its first turn, then one in each
    assert first.text and first.result() == first.text


def test_beams_are_searched_while_others_go_on(tiny_model, tiny_encoder, stepped) -> None:
    beams = Decoding(12, min_new_tokens=12, num_beams=3)
    asked = [sample(1), sample(4)]
    wanted = [alone(tiny_model, tiny_encoder, one, beams) for one in asked]
    short = stepped.submit(question(), Decoding(4, min_new_tokens=4))
    searches = [stepped.submit(one, beams) for one in asked]
    stepped.turn()
    assert short.ended  # while the first search went on
    assert short.seconds < searches[0].seconds
    stepped.finish()
    assert [one.result() for one in searches] == wanted
    assert [one.finish_reason for one in searches] == ["length", "length"]


def test_a_beam_search_that_nobody_wants_ends_at_its_next_step(engine) -> None:
    search = engine.submit(question(), Decoding(200, min_new_tokens=200, num_beams=3))
    while not engine.stats().running:
        time.sleep(0.001)
    search.cancel()
    search.result(timeout=5)
    assert search.finish_reason == "cancelled"
    assert search.answer_tokens < 200


def test_what_an_answer_tells_of_itself(tiny_model, tiny_encoder, engine) -> None:
    asked = sample(2)
    answering = engine.submit(asked, Decoding(5, min_new_tokens=5))
    pieces = list(answering)
    assert "".join(pieces) == answering.text == answering.result() == "".join(answering)
    assert list(answering.pieces) == pieces
    slots = tiny_encoder.slots
    assert answering.media_tokens == len(asked.images) * slots["image"] + len(asked.audios) * slots["audio"]
    assert len(answering.prompt_ids) == answering.prompt_tokens + answering.media_tokens
    assert len(answering.prompt_ids) == tiny_encoder.places(asked.turns[:-1])
    assert answering.answer_tokens == 5 and answering.finish_reason == "length"
    assert 0 < answering.first_token_s <= answering.seconds
    stats = engine.stats()
    assert (stats.answered, stats.answer_tokens, stats.prompt_tokens) == (1, 5, answering.prompt_tokens)


def test_stop_strings_of_the_request_count_beside_the_templates(tiny_model, tiny_encoder, engine) -> None:
    free = engine.submit(sample(1), Decoding(30, min_new_tokens=8)).result()
    stop = free[9]
    answering = engine.submit(sample(1), Decoding(30), stop=[stop])
    assert answering.result() == alone(tiny_model, tiny_encoder, sample(1), Decoding(30), [stop])
    assert answering.finish_reason == "stop" and stop not in answering.result()


def test_the_queue_is_bounded_and_those_who_wait_are_still_served(stepped) -> None:
    stepped._queue.size, stepped._worker.max_batch = 2, 1
    stepped._worker.room = 1
    running = stepped.submit(question(), Decoding(3))
    stepped.turn()
    waiting = [stepped.submit(question(str(i)), Decoding(3)) for i in range(2)]
    with pytest.raises(EngineBusy, match="2 requests wait"):
        stepped.submit(question("late"), Decoding(3))
    assert issubclass(EngineBusy, ChatError)
    assert stepped.stats().waiting == 2
    stepped.finish()
    assert all(a.ended and a.finish_reason != "cancelled" for a in [running, *waiting])
    assert stepped.submit(question("later"), Decoding(3))


def test_who_waits_can_leave_too(stepped) -> None:
    stepped._worker.max_batch = stepped._worker.room = 1
    running, waiting = stepped.submit(question(), Decoding(3)), stepped.submit(question("b"), Decoding(3))
    stepped.turn()
    waiting.cancel()
    stepped.turn()
    assert waiting.finish_reason == "cancelled" and waiting.text == ""
    stepped.finish()
    assert running.finish_reason != "cancelled"
    assert stepped.stats().cancelled == 1


def test_an_answer_that_nobody_holds_any_more_is_given_up(stepped) -> None:
    answering = stepped.submit(question(), LONG)
    stepped.turn()
    assert stepped.stats().running == 1
    del answering
    gc.collect()
    stepped.turn()
    assert stepped.stats().running == 0 and stepped.stats().cancelled == 1


def test_an_event_loop_can_listen(engine) -> None:
    heard = threading.Event()
    answering = engine.submit(question(), Decoding(5, min_new_tokens=5))
    calls = []

    def listener() -> None:
        calls.append(answering.ended)
        if answering.ended:
            heard.set()

    answering.listen(listener)
    assert heard.wait(5)
    assert calls[-1]


def test_a_listener_that_fails_disturbs_nobody(stepped) -> None:
    answering = stepped.submit(question(), Decoding(4, min_new_tokens=4))
    calls = []

    def listener() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the loop is closed")

    answering.listen(listener)
    stepped.finish()
    assert answering.result() and stepped.stats().failed == 0


def test_closing_ends_everything_and_nobody_can_come_any_more(tiny_model, tiny_encoder) -> None:
    engine = Engine(tiny_model, tiny_encoder, max_batch=1)
    answers = [engine.submit(question(str(i)), LONG) for i in range(3)]
    next(iter(answers[0]))
    engine.close()
    assert [a.finish_reason for a in answers] == ["cancelled"] * 3
    with pytest.raises(ChatError, match="closed"):
        engine.submit(question(), LONG)
    engine.close()


def test_an_engine_that_is_dropped_takes_its_thread_along(tiny_model, tiny_encoder) -> None:
    before = threading.active_count()
    engine = Engine(tiny_model, tiny_encoder)
    assert engine.submit(question(), Decoding(2)).result() is not None
    assert threading.active_count() == before + 1
    del engine
    gc.collect()
    for _ in range(200):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before


def test_media_are_encoded_once_whoever_sends_them(tiny_model, tiny_encoder, monkeypatch) -> None:
    engine = SteppedEngine(tiny_model, tiny_encoder)
    seen = []
    real = tiny_model.soft_tokens
    monkeypatch.setattr(tiny_model, "soft_tokens", lambda kind, m: seen.append((kind, len(m))) or real(kind, m))

    def ask(name: str, *images: Media) -> str:
        turns = [Turn("user", "<image>" * len(images) + "what?"), Turn("assistant", "")]
        answering = engine.submit(Sample(name, turns, list(images)), Decoding(6))
        engine.finish()
        return answering.result()

    first = ask("a", picture(1))
    again = Media(data=picture(1).data, name="the same under another name.png")
    assert ask("b", again) == first
    ask("c", picture(1), picture(2), again)
    assert seen == [("image", 1), ("image", 1)]
    assert (engine.stats().media_hits, engine.stats().media_misses) == (3, 2)
    small = SteppedEngine(tiny_model, tiny_encoder, media_cache_mb=0)
    for _ in range(2):
        answering = small.submit(looked_at(1), Decoding(2))
        small.finish()
        assert answering.ended
    assert len(seen) == 4 and small.stats().media_hits == 0


def test_a_full_cache_forgets_the_oldest_and_the_answers_stay_the_same(tiny_model, tiny_encoder) -> None:
    engine = SteppedEngine(tiny_model, tiny_encoder)
    one = 4 * 32 * 4  # bytes of the features of a picture: 4 places of 32 numbers
    engine._media.budget = 2 * one + 3 * 16 * 16 * 4  # and of an opened one beside them
    for number in (0, 1, 2, 3, 0):
        answering = engine.submit(looked_at(number), Decoding(2))
        engine.finish()
        assert answering.ended
    assert engine.stats().media_misses == 5
    assert engine._media._bytes == 3 * one and len(engine._media._held) == 3


@pytest.mark.parametrize("values", [{"max_batch": 0}, {"max_waiting": 0}])
def test_impossible_sizes_are_refused(tiny_model, tiny_encoder, values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Engine(tiny_model, tiny_encoder, **values)


def test_the_fingerprint_tells_models_apart(tiny_model, tiny_encoder) -> None:
    import copy

    other = copy.deepcopy(tiny_model)
    assert Engine(other, tiny_encoder).fingerprint == Engine(tiny_model, tiny_encoder).fingerprint
    other.llm.model.get_input_embeddings().weight.data[0, 0] += 1
    assert Engine(other, tiny_encoder).fingerprint != Engine(tiny_model, tiny_encoder).fingerprint


def test_prompts_are_read_together_but_not_so_many_that_answers_stall() -> None:
    pace = Pace()
    assert pace.room(free=16, most=16, waiting=40) == 16
    pace.read(16, 3.2)  # a fifth of a second each
    assert pace.room(free=16, most=16, waiting=40) == 2
    pace.read(2, 20.0)
    assert pace.room(free=16, most=16, waiting=40) == 1  # and never none
    assert pace.room(free=0, most=16, waiting=40) == 0


def test_one_free_place_waits_a_few_steps_for_the_next_where_many_wait() -> None:
    pace = Pace()
    assert [pace.room(free=1, most=16, waiting=9) for _ in range(6)] == [0, 0, 0, 0, 1, 0]
    assert pace.room(free=1, most=16, waiting=1) == 1
    assert pace.room(free=4, most=16, waiting=9) == 4
    assert pace.room(free=1, most=4, waiting=9) == 1

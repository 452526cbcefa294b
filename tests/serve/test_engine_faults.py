"""What goes wrong for one request is told to the one who asked; the others get their answers all the same."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from engine_parts import DECODINGS, SteppedEngine, alone, picture, sample

from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Media, Sample, Turn
from minigpt4o.models import generation_cache as caches
from minigpt4o.models.answer import Answer
from minigpt4o.models.generation_rows import Rows
from minigpt4o.serve.engine import Engine
from minigpt4o.serve.engine_worker import Worker
from minigpt4o.serve.limits import ChatError

SECRET = "/secret/path"


@pytest.fixture
def engine(tiny_model: Any, tiny_encoder: Any) -> SteppedEngine:
    return SteppedEngine(tiny_model, tiny_encoder)


@pytest.fixture(scope="module")
def wanted(tiny_model: Any, tiny_encoder: Any) -> list[str]:
    return [alone(tiny_model, tiny_encoder, sample(i), DECODINGS[i % 5]) for i in range(10)]


def ask_all(engine: SteppedEngine, apart: bool = False) -> list[Any]:
    """The ten samples, all at once or one after the other begun."""
    answers = []
    for i in range(10):
        answers.append(engine.submit(sample(i), DECODINGS[i % 5]))
        if apart:
            engine.turn()
    engine.finish()
    return answers


def assert_only_fails(engine: Engine, answers: list[Any], wanted: list[str], bad: int, words: str) -> None:
    for i, answering in enumerate(answers):
        if i == bad:
            with pytest.raises(ChatError, match=words) as caught:
                answering.result()
            assert SECRET not in str(caught.value)
            with pytest.raises(ChatError):
                list(answering)
            assert answering.finish_reason == ""
        else:
            assert answering.result() == wanted[i]
    assert (engine.stats().failed, engine.stats().answered) == (1, 9)
    assert engine.stats().running == engine.stats().waiting == 0


@pytest.mark.parametrize("apart", [False, True])
def test_a_prompt_that_the_model_cannot_read_fails_alone(engine, wanted, monkeypatch, apart) -> None:
    spliced = engine.model.spliced

    def broken(ids: torch.Tensor, features: Any, samples: Any) -> torch.Tensor:
        if any(s.id == "s3" for s in samples):
            raise RuntimeError(SECRET)
        return spliced(ids, features, samples)

    monkeypatch.setattr(engine.model, "spliced", broken)
    assert_only_fails(engine, ask_all(engine, apart), wanted, 3, "could not be generated")


@pytest.mark.parametrize("error", [RuntimeError(SECRET), MemoryError(SECRET), torch.OutOfMemoryError(SECRET)])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_a_row_that_breaks_the_step_of_all_fails_alone(engine, wanted, monkeypatch, apart, error, late) -> None:
    step = Rows.step

    def broken(rows: Rows) -> list[int]:
        bad = any(row.name == "s3" and len(row.tokens) >= 3 for row in rows.rows)
        tokens = step(rows) if late or not bad else []  # late: everybody has drawn a word already
        if bad:
            raise error
        return tokens

    monkeypatch.setattr(Rows, "step", broken)
    words = "could not be generated" if error.args and type(error) is RuntimeError else "not enough memory"
    assert_only_fails(engine, ask_all(engine, apart), wanted, 3, words)


def test_where_memory_is_short_fewer_run_together_and_all_are_answered(engine, wanted, monkeypatch) -> None:
    hidden, most = type(engine.model.llm).hidden, []

    def small(self: Any, inputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        if inputs.shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        most.append(inputs.shape[0])
        return hidden(self, inputs, *rest)

    monkeypatch.setattr(type(engine.model.llm), "hidden", small)
    answers = ask_all(engine)
    assert [a.result() for a in answers] == wanted
    assert max(most) == 3 and engine.stats().failed == 0
    assert engine.stats().prompt_tokens == sum(a.prompt_tokens for a in answers)


def test_a_text_that_cannot_be_read_ends_its_own_answer(engine, wanted, monkeypatch) -> None:
    add = Answer.add

    def broken(answer: Answer, token: int) -> None:
        if answer is answers[3]._job.row.answer and len(answer.ids) == 2:
            raise ValueError(SECRET)
        add(answer, token)

    monkeypatch.setattr(Answer, "add", broken)
    answers = [engine.submit(sample(i), DECODINGS[i % 5]) for i in range(10)]
    engine.finish()
    assert_only_fails(engine, answers, wanted, 3, "could not be generated")


def test_media_that_cannot_be_encoded_fail_their_own_request(engine, monkeypatch) -> None:
    real, bad = engine.model.soft_tokens, []

    def broken(kind: str, media: torch.Tensor) -> torch.Tensor:
        if any(one.equal(bad[0]) for one in media):
            raise MemoryError
        return real(kind, media)

    processor = engine.encoder.processors["image"]
    bad.append(processor(picture(2)))
    monkeypatch.setattr(engine.model, "soft_tokens", broken)

    def ask(number: int) -> Any:
        turns = [Turn("user", "<image>what?"), Turn("assistant", "")]
        return engine.submit(Sample("m", turns, [picture(number)]), Decoding(4, min_new_tokens=4))

    answers = [ask(number) for number in (1, 2, 3)]
    engine.finish()
    assert answers[0].result() and answers[2].result()
    with pytest.raises(ChatError, match="not enough memory"):
        answers[1].result()


@pytest.mark.parametrize(
    ("media", "words"),
    [
        (Media(data=b"no picture", name="x.png"), r"cannot be read.*x\.png"),
        (Media(path="/secret/path/nothing.png", name="nothing.png"), r"cannot be read.*nothing\.png"),
    ],
)
def test_media_that_are_none_are_refused_at_once(engine, media, words) -> None:
    turns = [Turn("user", "<image>what?"), Turn("assistant", "")]
    with pytest.raises(ChatError, match=words) as caught:
        engine.submit(Sample("m", turns, [media]), Decoding(4))
    assert SECRET not in str(caught.value)
    assert engine.stats().waiting == 0 and not engine._media._held


def test_a_processor_that_breaks_is_told_without_its_insides(engine, monkeypatch) -> None:
    def broken(media: Media, rng: Any) -> torch.Tensor:
        raise KeyError(SECRET)

    monkeypatch.setitem(engine._prompts.encoder.processors, "image", broken)
    with pytest.raises(ChatError, match="could not be read") as caught:
        engine.submit(Sample("m", [Turn("user", "<image>x"), Turn("assistant", "")], [picture(1)]), Decoding(4))
    assert SECRET not in str(caught.value)
    assert engine.stats().waiting == 0


@pytest.mark.parametrize(
    ("text", "decoding", "words"),
    [
        ("word " * 300, Decoding(4), "too long"),
        ("hello", Decoding(0), "max_new_tokens"),
        ("hello", Decoding(4, do_sample=True, temperature=0.0), "temperature"),
        ("<image>hello", Decoding(4), "do not fit this model"),
        ("\ud800", Decoding(4), "text cannot be used"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(engine, text, decoding, words) -> None:
    with pytest.raises(ChatError, match=words):
        engine.submit(Sample("m", [Turn("user", text), Turn("assistant", "")]), decoding)
    assert engine.stats().waiting == 0


def test_a_fault_of_the_engine_itself_ends_what_runs_and_the_next_are_served(engine, monkeypatch) -> None:
    answering = engine.submit(sample(1), Decoding(20, min_new_tokens=20))
    engine.turn()
    with monkeypatch.context() as broken:
        broken.setattr(Worker, "_settle", lambda self, group: 1 / 0)
        engine.turn()
    with pytest.raises(ChatError, match="could not be generated"):
        answering.result()
    again = engine.submit(sample(1), Decoding(5, min_new_tokens=5))
    engine.finish()
    assert again.result()


def test_caches_that_cannot_be_put_side_by_side_take_turns(engine, wanted, monkeypatch) -> None:
    monkeypatch.setattr(caches, "joinable", lambda cache: False)
    answers, groups = [], []
    for i in range(10):
        answers.append(engine.submit(sample(i), DECODINGS[i % 5], session="s"))
        engine.turn()
        groups.append(len(engine._worker.groups))
    engine.finish()
    assert [a.result() for a in answers] == wanted
    assert max(groups) > 3
    assert engine.stats().reused_tokens == 0


def test_a_reused_cache_that_breaks_is_done_without(engine, monkeypatch) -> None:
    turns = [Turn("user", "hello"), Turn("assistant", "")]
    first = engine.submit(Sample("a", turns), Decoding(4), session="s")
    engine.finish()
    monkeypatch.setattr("minigpt4o.serve.engine_worker.begin_reused", lambda *given, **more: 1 / 0)
    again = engine.submit(Sample("a", turns), Decoding(4), session="s")
    engine.finish()
    assert again.result() == first.result() and again.reused_tokens == 0


def test_a_failed_step_holds_no_tensors(engine, monkeypatch) -> None:
    import gc
    import weakref

    held = []
    hidden = type(engine.model.llm).hidden

    def broken(self: Any, inputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        if inputs.shape[1] == 1:
            big = torch.zeros(10)
            held.append(weakref.ref(big))
            raise MemoryError
        return hidden(self, inputs, *rest)

    monkeypatch.setattr(type(engine.model.llm), "hidden", broken)
    answering = engine.submit(sample(1), Decoding(20, min_new_tokens=20))
    engine.finish()
    gc.collect()
    assert held and all(ref() is None for ref in held)
    assert isinstance(answering.error, ChatError)


def test_a_cancelled_request_frees_its_place_within_two_seconds_under_load(tiny_model, tiny_encoder) -> None:
    engine = Engine(tiny_model, tiny_encoder, max_batch=4)
    answers = [engine.submit(sample(i), Decoding(200, min_new_tokens=200)) for i in range(8)]
    while engine.stats().running < 4:
        time.sleep(0.001)
    start = time.monotonic()
    for answering in answers:
        answering.cancel()
    for answering in answers:
        answering.result(timeout=2)
    while engine.stats().running:
        time.sleep(0.001)
    assert time.monotonic() - start < 2
    assert engine.submit(sample(1), Decoding(3, min_new_tokens=3)).result()
    engine.close()


def test_memory_that_is_short_once_is_made_free_and_the_answer_goes_on(engine, wanted, monkeypatch) -> None:
    hidden, fails = type(engine.model.llm).hidden, iter([True])

    def short(self: Any, *given: Any) -> torch.Tensor:
        if next(fails, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(self, *given)

    monkeypatch.setattr(type(engine.model.llm), "hidden", short)
    first = engine.submit(sample(0), DECODINGS[0])
    engine.finish()
    fails = iter([False, False, True])  # and in the middle of an answer
    second = engine.submit(sample(1), DECODINGS[1])
    engine.finish()
    assert [first.result(), second.result()] == wanted[:2]
    assert engine.stats().failed == 0
    assert engine.stats().prompt_tokens == first.prompt_tokens + second.prompt_tokens


@pytest.mark.parametrize("act", ["join", "keep", "trim"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError(SECRET), RuntimeError(SECRET)])
def test_rows_that_cannot_be_put_together_or_parted_begin_again_where_they_were(
    engine, wanted, monkeypatch, act, error
) -> None:
    real, calls = getattr(Rows, act), []

    def broken(rows: Rows, *given: Any) -> Any:
        calls.append(len(rows))
        if len(calls) % 3 == 1:
            rows.cache.layers[0].keys = None  # it broke half way
            raise error
        return real(rows, *given)

    monkeypatch.setattr(Rows, act, broken)
    answers = ask_all(engine, apart=True)
    assert [a.result() for a in answers] == wanted
    assert calls and engine.stats().failed == 0 and engine.stats().answered == 10
    assert engine.stats().prompt_tokens == sum(a.prompt_tokens for a in answers)


def test_a_kept_turn_that_cannot_be_taken_up_is_done_without(engine, monkeypatch) -> None:
    first = engine.submit(sample(1), Decoding(4), session="s")
    engine.finish()
    monkeypatch.setattr(caches, "rewind", lambda *given: 1 / 0)
    again = engine.submit(sample(1), Decoding(4), session="s")
    engine.finish()
    assert again.result() == first.result() and again.reused_tokens == 0


def test_a_fault_while_taking_in_leaves_nobody_waiting_for_ever(engine, monkeypatch) -> None:
    running = engine.submit(sample(1), Decoding(20, min_new_tokens=20))
    engine.turn()
    with monkeypatch.context() as broken:
        broken.setattr("minigpt4o.serve.engine_worker.alike", lambda jobs: 1 / 0)
        taken = engine.submit(sample(2), Decoding(5))
        engine.turn()
    with pytest.raises(ChatError, match="could not be generated"):
        taken.result(timeout=1)
    engine.finish()
    assert running.result()


def test_a_beam_search_that_is_cut_off_by_the_end_of_the_engine_was_cancelled(tiny_model, tiny_encoder) -> None:
    engine = Engine(tiny_model, tiny_encoder)
    searched = engine.submit(sample(1), Decoding(200, min_new_tokens=200, num_beams=2))
    while not engine.stats().running:
        time.sleep(0.001)
    engine.close()
    assert searched.ended and searched.finish_reason == "cancelled"
    assert (engine.stats().answered, engine.stats().cancelled) == (0, 1)

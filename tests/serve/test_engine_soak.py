"""Two hundred requests of every kind, from many threads, some given up: right answers, and nothing is left behind."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from engine_parts import alone, sample

from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.sample import Sample
from minigpt4o.serve.engine import Answering, Engine, EngineBusy

REQUESTS, DIFFERENT, THREADS = 200, 40, 12


@dataclass
class Wish:
    """A request, and what its owner does with the answer."""

    asked: Sample
    decoding: Decoding
    stop: tuple[str, ...]
    session: str
    fate: str  # read, result, cancel, leave (stops reading), drop (never reads)


def wish(number: int) -> Wish:
    number %= DIFFERENT
    draw = random.Random(f"soak {number}")
    decoding = Decoding(draw.randrange(1, 40), draw.choice([0, 0, 3]), repetition_penalty=draw.choice([1.0, 1.3]))
    way = draw.choice(["greedy", "greedy", "sample", "sample", "beams"])
    if way == "sample":
        more = {"temperature": draw.choice([0.7, 1.5]), "top_p": draw.choice([0.8, 1.0]), "seed": draw.randrange(99)}
        decoding = replace(decoding, do_sample=True, **more)
    elif way == "beams":
        decoding = replace(decoding, max_new_tokens=draw.randrange(1, 12), num_beams=draw.choice([2, 3]))
    return Wish(
        sample(number, draw),
        decoding,
        draw.choice([(), (), ("e",), ("there", "丸")]),
        draw.choice(["", "", "a", "b", "c"]),
        draw.choice(["read", "read", "result", "result", "cancel", "leave", "drop"]),
    )


def submit(engine: Engine, wanted: Wish) -> Answering:
    while True:
        try:
            return engine.submit(wanted.asked, wanted.decoding, stop=wanted.stop, session=wanted.session)
        except EngineBusy:
            time.sleep(0.002)


def live(engine: Engine, number: int) -> str | None:
    """Send a request and do with it what its owner does; the answer if the owner waits for it."""
    wanted, draw = wish(number), random.Random(number)
    answering = submit(engine, wanted)
    if wanted.fate == "read":
        return "".join(answering)
    if wanted.fate == "result":
        return answering.result(timeout=60)
    if wanted.fate == "cancel":
        time.sleep(draw.random() * 0.05)
        answering.cancel()
        answering.result(timeout=60)
        assert answering.finish_reason in ("cancelled", "stop", "length")
    elif wanted.fate == "leave":
        next(iter(answering), None)
    return None


def tensors() -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor)


@pytest.fixture(scope="module")
def expected(tiny_model: Any, tiny_encoder: Any) -> dict[int, str]:
    """What the model answers alone to those who wait for their answer."""
    texts = {}
    for number in range(DIFFERENT):
        wanted = wish(number)
        if wanted.fate in ("read", "result"):
            texts[number] = alone(tiny_model, tiny_encoder, wanted.asked, wanted.decoding, wanted.stop)
    assert len(set(texts.values())) > DIFFERENT / 3
    return {number: texts[number % DIFFERENT] for number in range(REQUESTS) if number % DIFFERENT in texts}


@pytest.mark.parametrize("sizes", [{"max_batch": 5, "max_waiting": 8}, {"media_cache_mb": 0, "reuse_mb": 0}])
def test_two_hundred_requests_are_answered_as_if_each_were_alone(tiny_model, tiny_encoder, expected, sizes) -> None:
    threads, before = threading.active_count(), tensors()
    engine = Engine(tiny_model, tiny_encoder, **sizes)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(partial(live, engine), range(REQUESTS)))
    wrong = {n: (found[n], text) for n, text in expected.items() if found[n] != text}
    assert not wrong
    end = time.monotonic() + 20
    while (now := engine.stats()).running or now.waiting:
        assert time.monotonic() < end, now
        gc.collect()  # those that were dropped are given up when they are collected
        time.sleep(0.01)
    assert now.failed == 0 and now.answered + now.cancelled == REQUESTS
    assert engine._worker.room == engine.sizes.max_batch
    assert engine.submit(sample(1), Decoding(3, min_new_tokens=3)).result(timeout=10)
    assert len(engine._kept._held) <= 3
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    gone = weakref.ref(engine)
    del engine, closing, found
    left = tensors() - before
    assert gone() is None
    assert left < REQUESTS / 10, f"{left} tensors are left"  # a few are what libraries make once
    assert threading.active_count() == threads


@pytest.mark.parametrize("seed", range(6))
def test_closing_returns_whatever_is_going_on(tiny_model, tiny_encoder, seed) -> None:
    draw = random.Random(seed)
    engine = Engine(tiny_model, tiny_encoder, max_batch=4, max_waiting=99)
    answers = [submit(engine, wish(draw.randrange(REQUESTS))) for _ in range(12)]
    time.sleep(draw.random() * 0.2)
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    for answering in answers:
        answering.result(timeout=0)
        assert answering.finish_reason
    stats = engine.stats()
    assert stats.running == stats.waiting == 0
    assert stats.answered + stats.cancelled == 12

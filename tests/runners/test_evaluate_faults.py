"""Killed, divided among ranks, answered with nonsense: an evaluation ends with the file it would have had."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluate_world import HandedIn, evaluated, make_world, results_of, seen

from minigpt4o.common.errors import CheckpointError
from minigpt4o.conversation.sample import Sample, Turn
from minigpt4o.runners import evaluate_answers
from minigpt4o.runners.evaluate_answers import Pace
from minigpt4o.runners.evaluate_items import collect
from minigpt4o.runners.evaluate_journal import Journal

KILLS = 20


def in_child(work: Callable[[], Any], **environment: str) -> int:
    """Fork; the child works and ends without returning. It needs no import, so it is quick."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(environment)
        logging.disable(logging.CRITICAL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        work()
        code = 0
    finally:
        os._exit(code)


def ended(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def predictions(run: Path) -> bytes:
    return (run / "predictions/model.words.seen.jsonl").read_bytes()


def test_killed_at_twenty_random_moments_results_are_those_of_one_left_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = make_world(tmp_path, 120, baselines=["blind"], bootstrap=20)
    write = Journal.write
    monkeypatch.setattr(Journal, "write", lambda self, row: (time.sleep(0.001), write(self, row)))  # time to be killed
    evaluated(yaml, run_id="warm")  # what is imported on first use is no part of the time to be killed in
    began = time.monotonic()
    peace = evaluated(yaml, run_id="peace")
    whole, draw, kills, torn = time.monotonic() - began, random.Random(7), 0, 0
    for number in range(40):
        run = tmp_path / f"output/eval/{number}"
        work = partial(evaluated, yaml, run_id=run.name)
        while not (run / "results.json").exists():
            pid = in_child(work)
            time.sleep(draw.uniform(0, whole))
            os.kill(pid, signal.SIGKILL)
            kills += ended([pid]) == [-signal.SIGKILL]
            torn += any(part.stat().st_size for part in run.glob("predictions/*.part"))
        assert results_of(run) == results_of(peace)
        assert predictions(run) == predictions(peace)
        if kills >= KILLS:
            break
    assert kills >= KILLS and torn


@pytest.fixture
def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_gives_the_file_and_the_score_of_one(tmp_path: Path, port: str, ranks: int) -> None:
    """1, 7, 10 and 1001 prompts: fewer than ranks, no multiple of them, many."""
    yamls = []
    for count in (1, 7, 10, 1001):
        (tmp_path / str(count)).mkdir()
        yamls.append(make_world(tmp_path / str(count), count))

    def work() -> None:
        from minigpt4o.common import distributed

        world = distributed.start("cpu", 60)
        for yaml in yamls:
            evaluated(yaml, run_id="many")
        distributed.finish(world)

    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    assert ended([in_child(work, RANK=str(rank), **meeting) for rank in range(ranks)]) == [0] * ranks
    for yaml in yamls:
        one, many = evaluated(yaml), yaml.parent / "output/eval/many"
        assert predictions(many) == predictions(one)
        assert results_of(many) == results_of(one)
        ids = [json.loads(line)["id"] for line in predictions(many).splitlines()[1:]]
        assert len(ids) == len(set(ids)) == int(yaml.parent.name)


def test_an_answer_of_two_ranks_or_of_none_is_no_merge(tmp_path: Path) -> None:
    def part(rank: int, *names: str) -> Journal:
        journal = Journal(tmp_path / "a.jsonl", {}, rank)
        journal.open()
        for name in names:
            journal.rows.pop(name, None)
            journal.write({"id": name})
        journal.close()
        return journal

    part(0, "a", "b")
    twice = part(1, "b", "c")
    with pytest.raises(CheckpointError, match=r"'b' stands in a\.rank0\.part and in a\.rank1\.part"):
        twice.finish(["a", "b", "c"])
    (tmp_path / "a.rank1.part").unlink()
    with pytest.raises(CheckpointError, match="it answers 'b', which was not asked"):
        part(1, "c").finish(["a", "c"])


def test_an_evaluation_started_afresh_forgets_the_parts_of_ranks_that_are_no_more(tmp_path: Path) -> None:
    yaml = make_world(tmp_path, 6)
    whole = evaluated(yaml, run_id="whole")
    old = tmp_path / "output/eval/r/predictions/model.words.seen.rank5.part"
    old.parent.mkdir(parents=True)
    old.write_bytes(predictions(whole).replace(b'"answer": "', b'"answer": "old '))
    assert predictions(evaluated(yaml, "run.resume=false")) == predictions(whole)
    assert not old.exists()


@pytest.mark.parametrize("says", ["", "x" * 100_000, "{<12><", "\x00\u202e<image>{}", "\\ud800 \"'\n\r\u2028"])
def test_nonsense_of_a_model_is_wrong_and_stands_in_the_file_as_it_was_said(tmp_path: Path, says: str) -> None:
    yaml = make_world(tmp_path, 5)
    tree = json.loads(yaml.read_text())
    tree["model"] |= {"says": says or " ", "skill": 0.0}
    yaml.write_text(json.dumps(tree))
    run = evaluated(yaml)
    assert seen(run)["scores"]["exact_match"]["value"] == 0.0
    assert seen(run)["n"] == 5
    assert seen(run).get("empty_answers", 0) == (0 if says else 5)
    rows = [json.loads(line) for line in predictions(run).decode().split("\n")[1:-1]]
    assert {row["answer"].strip() for row in rows} == {says.strip()}
    assert predictions(evaluated(yaml)) == predictions(run)  # and it can be read again


def test_a_repeated_id_is_asked_each_time_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = make_world(tmp_path, 6)
    rows = json.loads((tmp_path / "questions.json").read_text())
    rows[4]["question_id"] = rows[5]["question_id"] = 101
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    run = evaluated(yaml)
    told = results_of(run)["datasets"]["words"]
    assert told["n"] == 6 and told["repeated_ids"] == {"count": 2, "first": ["101", "101"]}
    ids = [json.loads(line)["id"] for line in predictions(run).splitlines()[1:]]
    assert ids == ["100", "101", "102", "103", "101#2", "101#3"]
    assert "words: 2 samples have the id of an earlier one (101); each was asked" in capsys.readouterr().out


def test_ids_that_a_builder_leaves_equal_are_told_apart_and_keep_their_official_name() -> None:
    class Builder:
        def __len__(self) -> int:
            return 3

        def sample(self, index: int, rng: random.Random) -> Sample:
            return Sample("a@1" if index == 2 else "a", [Turn("user", "?"), Turn("assistant", str(index))])

    task = HandedIn(HandedIn.Config())
    asked = collect(Builder(), task, "set", "en", None, 0)
    assert [item.sample.id for item in asked.items] == ["a", "a@1", "a@1@2"]
    assert [task.official_id(item.sample) for item in asked.items] == ["a", "a", "a@1"]
    assert asked.repeated == ["a", "a@1"]


def test_results_tell_all_that_a_reader_needs_to_measure_it_again(tmp_path: Path) -> None:
    results = results_of(evaluated(make_world(tmp_path, 12)))
    told = results["datasets"]["words"]
    assert results["format"] == 2
    assert told["prompt"]["text"] == "<user>number 0 ?<assistant>" and len(told["prompt"]["sha256"]) == 64
    assert (told["prompt"]["template"], told["prompt"]["profile"], told["answered"]) == ("toy", "default", "generated")
    assert told["decoding"]["max_new_tokens"] == 4 and told["task_options"] == {"max_new_tokens": 4}
    variant = results["variants"]["model"]
    assert (
        set(variant) == {"checkpoint", "checkpoint_sha256", "weights_sha256"} and len(variant["weights_sha256"]) == 64
    )
    run = results["run"]
    assert {"seed", "versions", "hardware", "git", "from", "limit", "split"} <= set(run)
    found = told["variants"]["model"]["conditions"]["seen"]
    assert len(found["data_sha256"]) == 64 and set(found["by"]) == {"language", "question_type"}
    assert {"value", "low", "high", "n", "unparsable", "variant", "interval", "better"} == set(
        found["scores"]["exact_match"]
    )


def test_it_says_how_fast_it_goes_and_how_long_it_will_take(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("minigpt4o"), "propagate", True)  # a command run before may have changed it
    now = iter([0.0, 1.0, 20.0, 30.0, 100.0])
    monkeypatch.setattr(evaluate_answers, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with caplog.at_level("INFO", "minigpt4o"):
        pace = Pace("words", 1000)
        for _ in range(4):
            pace.add(100)
    assert list(dict.fromkeys(r.getMessage() for r in caplog.records)) == [
        "words: 200 of 1000 prompts of this rank, 10.0 per second, about 80 s left",
        "words: 400 of 1000 prompts of this rank, 4.0 per second, about 150 s left",
    ]

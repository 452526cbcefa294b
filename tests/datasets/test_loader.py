"""The loader's order does not depend on workers, ranks or stops, and bad samples are counted without moving others."""

import json
import os
import random
import signal
from collections import Counter

import pytest
import torch

from minigpt4o.common.errors import CheckpointError, DataError, SkipSample
from minigpt4o.conversation.batch import IGNORE, Example
from minigpt4o.conversation.sample import Sample, Turn
from minigpt4o.datasets.loader import TrainLoader


class Numbers:
    """A data set of numbers; those in `bad` cannot be used."""

    def __init__(self, count, name="n", bad=(), error=None):
        self.count, self.name, self.bad, self.error = count, name, set(bad), error

    def __len__(self):
        return self.count

    def sample(self, index, rng):
        if index in self.bad:
            raise self.error or SkipSample("bad_text", f"row {index} is empty")
        turns = [Turn("user", f"{index}?"), Turn("assistant", str(rng.randrange(10**6)))]
        return Sample(f"{self.name}{index}", turns, dataset=self.name, where=f"row {index}")


class Bytes:
    """Bytes as tokens; the answer is learned."""

    def example(self, sample, rng):
        said, answer = (list(t.text.encode()) for t in sample.turns)
        labels = [IGNORE] * len(said) + answer
        return Example(
            torch.tensor(said + answer), torch.tensor(labels), [torch.full((3, 2, 2), rng.random())], [], sample
        )

    def prompt(self, sample, rng):
        ids = torch.tensor(list(sample.turns[0].text.encode()))
        return Example(ids, torch.full_like(ids, IGNORE), [], [], sample)


def loader(sets, ratios=None, **values):
    values = {"seed": 1, "batch_size": 4, "max_bad_fraction": 1.0} | values
    return TrainLoader(sets, ratios or dict.fromkeys(sets, 1), {name: Bytes() for name in sets}, **values)


def take(batches, count):
    """What `count` batches hold: ids, tokens and pixels, so that draws are compared too."""
    found = []
    for batch in batches:
        found.append(([s.id for s in batch.samples], batch.input_ids.tolist(), batch.images[:, 0, 0, 0].tolist()))
        if len(found) == count:
            return found
    raise AssertionError("the loader ended")


def ids_of(found):
    return [name for ids, _, _ in found for name in ids]


TWO = {"a": Numbers(23, "a", bad=[3, 4]), "b": Numbers(10, "b")}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers):
    alone = take(loader(TWO, {"a": 2, "b": 1}), 12)
    assert take(loader(TWO, {"a": 2, "b": 1}, num_workers=workers), 12) == alone


def test_two_ranks_give_together_what_one_gives():
    alone = take(loader(TWO, batch_size=4), 10)
    ranks = [take(loader(TWO, batch_size=2, rank=rank, world_size=2), 10) for rank in (0, 1)]
    assert [one[0] + other[0] for one, other in zip(*ranks, strict=True)] == [ids for ids, _, _ in alone]


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_anywhere_and_resumed_is_never_stopped(workers):
    whole = take(loader(TWO), 14)
    for stop in (1, 5, 9):
        first = loader(TWO, num_workers=workers)
        start = take(first, stop)
        state = json.loads(json.dumps(first.state()))
        second = loader(TWO)
        second.load_state(state)
        assert start + take(second, 14 - stop) == whole
        assert second.bad.state() == _counted(14)
        again = loader(TWO, start_position=state["position"])
        assert take(again, 2) == whole[stop : stop + 2]


def _counted(batches):
    whole = loader(TWO)
    take(whole, batches)
    return whole.bad.state()


def test_another_number_of_ranks_goes_on_at_the_same_sample():
    whole = ids_of(take(loader(TWO, batch_size=2), 24))
    two = [loader(TWO, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for each in two:
        take(each, 5)
    state = two[0].state()
    assert state["position"] == 20
    one = loader(TWO, batch_size=4)
    one.load_state(state)
    assert ids_of(take(one, 7)) == whole[20:48]


def test_a_loop_that_breaks_off_and_starts_again_loses_no_batch():
    whole = take(loader(TWO), 6)
    for workers in (0, 2):
        stopped = loader(TWO, num_workers=workers)
        assert take(stopped, 3) + take(stopped, 3) == whole


def test_every_epoch_holds_every_sample_once():
    names = ids_of(take(loader({"a": Numbers(24, "a")}), 12))
    for epoch in (names[:24], names[24:]):
        assert sorted(epoch) == sorted(f"a{i}" for i in range(24))
    assert names[:24] != names[24:]


def test_samples_per_epoch_covers_the_longest_set():
    assert loader({"a": Numbers(24, "a")}).samples_per_epoch == 24
    assert loader(TWO, {"a": 2, "b": 1}).samples_per_epoch == 34  # 23 of a at 2 in 3


def test_bad_samples_are_stood_in_for_counted_and_written_down(tmp_path):
    good = {"a": Numbers(20, "a")}
    bad = {"a": Numbers(20, "a", bad=[7])}
    clean, quarantine = ids_of(take(loader(good), 10)), tmp_path / "runs" / "quarantine.jsonl"
    spoiled = loader(bad, quarantine=quarantine)
    got = []
    skipped = []
    for batch in spoiled:
        got += [s.id for s in batch.samples]
        skipped += batch.skipped
        if len(got) == 40:
            break
    moved = [i for i, (one, other) in enumerate(zip(clean, got, strict=True)) if one != other]
    assert [clean[i] for i in moved] == ["a7", "a7"]
    assert skipped == [("bad_text", "a[7] bad_text: row 7 is empty")] * 2
    assert spoiled.bad.reasons == Counter(bad_text=2)
    assert spoiled.bad.good == 40
    rows = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [(r["dataset"], r["index"], r["reason"], r["detail"]) for r in rows] == [
        ("a", 7, "bad_text", "row 7 is empty")
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_samples_end_the_run_with_the_first_three_named(workers):
    sets = {"a": Numbers(300, "a", bad=range(0, 300, 10))}
    spoiled = loader(sets, num_workers=workers, max_bad_fraction=0.05)
    with pytest.raises(DataError, match=r"(?s)more than run.max_bad_fraction 0.05.*(a\[\d+\] bad_text: row .*){3}Mend"):
        take(spoiled, 200)
    assert spoiled.bad.good + spoiled.bad.total >= 200
    take(loader(sets, max_bad_fraction=0.2), 100)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_that_is_bad_altogether_ends_the_run_at_once(workers):
    spoiled = loader({"a": Numbers(5, "a", bad=range(5))}, num_workers=workers)
    with pytest.raises(DataError, match=r"^datasets.a: 5 samples in a row cannot be used"):
        take(spoiled, 1)


def test_a_file_system_that_fails_for_a_moment_costs_no_sample():
    class Flaky(Numbers):
        failures = 2

        def sample(self, index, rng):
            if index == 3 and self.failures:
                self.failures -= 1
                raise OSError("stale handle")
            return super().sample(index, rng)

    steady = loader({"a": Flaky(8, "a")})
    assert sorted(ids_of(take(steady, 2))) == sorted(f"a{i}" for i in range(8))
    assert not steady.bad.total
    for error, reason in ((OSError("gone"), "read_error"), (FileNotFoundError("x.png"), "missing_file")):
        spoiled = loader({"a": Numbers(8, "a", bad=[3], error=error)})
        take(spoiled, 2)
        assert spoiled.bad.reasons == {reason: 1}


def test_a_programming_error_is_not_taken_for_a_bad_sample():
    with pytest.raises(ZeroDivisionError):
        take(loader({"a": Numbers(8, "a", bad=[3], error=ZeroDivisionError())}), 2)


def test_a_killed_worker_is_told_where_the_next_batch_is_asked_for_and_nowhere_else():
    killed = loader({"a": Numbers(8, "a")}, num_workers=1)
    batches = iter(killed)
    next(batches)
    worker = killed._loader._iterator._workers[0]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert sum(range(1000)) == 499_500  # the main process is in the middle of something else
    with pytest.raises(DataError, match="worker process died"):
        take(batches, 20)


def test_the_loader_draws_nothing_from_the_run_s_own_random_numbers():
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1).item(), random.random()
    torch.manual_seed(3)
    random.seed(3)
    take(loader(TWO), 3)
    take(loader(TWO, num_workers=1), 3)
    assert (torch.rand(1).item(), random.random()) == expected


def test_changed_data_ratios_or_seed_are_refused_on_resume():
    state = loader(TWO).state()
    for other, said in (
        (loader({"a": Numbers(24, "a"), "b": TWO["b"]}), r"data changed.*: a"),
        (loader(TWO, {"a": 3, "b": 1}), "sample_ratio"),
        (loader(TWO, seed=2), "seed"),
        (loader({"a": TWO["a"]}), "data sets"),
    ):
        with pytest.raises(CheckpointError, match=said):
            other.load_state(state)
    assert loader(TWO).fingerprint() == loader(TWO).fingerprint()
    assert loader(TWO).fingerprint() != loader(TWO, seed=2).fingerprint()


def test_an_empty_set_is_refused_by_name():
    with pytest.raises(DataError, match=r"datasets\.none: holds no sample"):
        loader({"none": Numbers(0)})


def test_every_position_draws_anew_even_for_the_same_sample():
    drawn = [row for _, _, pixels in take(loader({"a": Numbers(4, "a")}), 5) for row in pixels]
    assert len(set(drawn)) == 20

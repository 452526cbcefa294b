"""Bad samples, failing disks and dying workers: counted, named, retried or told, and the order stays what it was."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import tarfile
from itertools import islice
from pathlib import Path

import pytest
from numbers_set import Numbers, ids_of, loader, take

from minigpt4o.common.errors import DataError
from minigpt4o.common.registry import Part, registry
from minigpt4o.datasets import bad as bad_samples
from minigpt4o.datasets.bad import BadSample, BadSamples, merged, report_of


class Stubborn(Numbers):
    """Each read fails with an input/output error for a moment, one in `one_in` of them, after something was drawn."""

    def __init__(self, count, one_in, **values):
        super().__init__(count, **values)
        self.rng, self.one_in, self.failed = random.Random(5), one_in, 0

    def sample(self, index, rng):
        sample = super().sample(index, rng)
        if self.rng.randrange(self.one_in) == 0:
            self.failed += 1
            raise OSError(errno.EIO, "Input/output error")
        return sample


def test_reads_that_fail_one_in_a_hundred_change_neither_order_nor_texts(monkeypatch):
    monkeypatch.setattr(bad_samples, "PAUSE_S", 0.0)
    steady, flaky = Numbers(500), Stubborn(500, 100)
    shaken = loader({"n": flaky})
    assert take(shaken, 300) == take(loader({"n": steady}), 300)
    assert flaky.failed > 5
    assert shaken.bad.total == 0


def test_tars_on_a_disk_that_fails_one_read_in_a_hundred(monkeypatch, tmp_path):
    monkeypatch.setattr(bad_samples, "PAUSE_S", 0.0)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(60):
            info = tarfile.TarInfo(f"{i}.txt")
            info.size = len(f"text {i}")
            tar.addfile(info, io.BytesIO(f"text {i}".encode()))
    values = {"annotations": {"train": str(tmp_path / "a.tar")}, "fields": {"text": "txt"}}
    tars = registry.build(Part("builder", "shards", values), name="tars", split="train")
    expected = take(loader({"tars": tars}), 100)
    pread, rng, failed = os.pread, random.Random(3), []

    def flaky(*where):
        if rng.randrange(100) == 0:
            failed.append(where)
            raise OSError(errno.EIO, "Input/output error")
        return pread(*where)

    monkeypatch.setattr(os, "pread", flaky)
    shaken = loader({"tars": tars})
    assert take(shaken, 100) == expected
    assert len(failed) > 2
    assert shaken.bad.total == 0


def test_a_read_that_never_works_is_given_up_and_counted(monkeypatch):
    monkeypatch.setattr(bad_samples, "PAUSE_S", 0.0)

    class Dead(Numbers):
        def sample(self, index, rng):
            if index == 3:
                raise OSError(errno.EIO, "Input/output error")
            return super().sample(index, rng)

    spoiled = loader({"n": Dead(12)})
    assert len(ids_of(take(spoiled, 2))) == 12
    assert spoiled.bad.reasons == {"read_error": 1}
    assert spoiled.bad.report()["datasets"]["n"]["reasons"]["read_error"]["examples"][0]["id"] == "n3"


def test_a_worker_killed_while_its_batch_is_being_fetched_is_told_as_a_dead_worker():
    """Torch takes one that is just dying for alive, and what comes out is the error of a broken connection."""
    for _ in range(3):
        batches = loader({"a": Numbers(500)}, num_workers=2, prefetch_factor=4)
        made = iter(batches)
        next(made)
        for worker in batches._loader._iterator._workers:
            os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(DataError, match="worker process died.*num_workers"):
            list(islice(made, 20))


def test_after_a_killed_worker_the_rest_comes_as_if_nothing_had_been():
    sets = {"n": Numbers(50, bad=[7])}
    whole = take(loader(sets), 20)
    killed = loader(sets, num_workers=2)
    batches = iter(killed)
    start = [next(batches) for _ in range(4)]
    worker = killed._loader._iterator._workers[1]
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with pytest.raises(DataError, match=rf"worker process died .*{worker.pid}.*run.num_workers") as told:
        start.extend(islice(batches, 16))
    assert told.value.exit_code == 3
    resumed = loader(sets)
    resumed.load_state(killed.state())
    done = len(start)
    assert [[s.id for s in batch.samples] for batch in start] == [[name for name, _ in b] for b in whole[:done]]
    assert take(resumed, 20 - done) == whole[done:]
    assert resumed.bad.state() == counted(sets, 20)


def counted(sets, batches):
    whole = loader(sets)
    take(whole, batches)
    return whole.bad.state()


def test_the_report_counts_by_data_set_and_reason_and_names_three(tmp_path):
    sets = {"a": Numbers(40, "a", bad=range(0, 40, 8)), "b": Numbers(40, "b", bad=[1])}
    spoiled = loader(sets, quarantine=tmp_path / "quarantine.jsonl")
    take(spoiled, 14)
    report = spoiled.bad.report()
    assert report["good"] == 84
    a, b = report["datasets"]["a"], report["datasets"]["b"]
    assert a["good"] + b["good"] == 84
    assert a["reasons"]["bad_text"]["count"] == a["bad"] >= 5
    assert len(a["reasons"]["bad_text"]["examples"]) == 3
    assert {e["id"] for e in a["reasons"]["bad_text"]["examples"]} < {f"a{i}" for i in range(0, 40, 8)}
    assert b["reasons"]["bad_text"]["examples"] == [{"id": "b1", "where": "", "detail": "row 1 is empty"}]
    assert report["bad_fraction"] == (a["bad"] + b["bad"]) / (84 + a["bad"] + b["bad"])
    rows = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert sorted((r["dataset"], r["index"], r["id"]) for r in rows) == sorted(
        (name, i, f"{name}{i}") for name, builder in sets.items() for i in builder.bad
    )


def test_counts_go_on_after_a_stop_and_nobody_is_named_twice(tmp_path):
    sets, quarantine = {"a": Numbers(40, "a", bad=range(0, 40, 8))}, tmp_path / "quarantine.jsonl"
    first = loader(sets, quarantine=quarantine)
    take(first, 5)
    state = json.loads(json.dumps(first.state()))
    take(first, 3)  # met, and written down, between the checkpoint and the kill
    with quarantine.open("a") as file:
        file.write('{"dataset": "a", "ind')  # the kill came in the middle of a line
    second = loader(sets, quarantine=quarantine)
    second.load_state(state)
    take(second, 9)
    assert second.bad.state() == counted(sets, 14)
    rows = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert sorted(r["index"] for r in rows) == list(range(0, 40, 8))


def test_two_ranks_counts_are_one_report():
    sets = {"a": Numbers(60, "a", bad=range(0, 60, 9))}
    whole = loader(sets, batch_size=4)
    take(whole, 20)
    parts = [loader(sets, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for part in parts:
        take(part, 20)
    together = report_of(merged([part.bad.state() for part in parts]), 1.0)
    alone = whole.bad.report()
    assert together["bad_fraction"] == alone["bad_fraction"]
    assert together["datasets"]["a"]["reasons"]["bad_text"]["count"] == alone["bad"]
    saved = {**parts[0].state(), "bad": merged([part.bad.state() for part in parts])}
    later = [loader(sets, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    for part in later:
        part.load_state(saved)
    assert merged([part.bad.state() for part in later])["sets"] == saved["bad"]["sets"]  # not counted once for each


def test_a_hundred_in_a_row_end_the_run_and_are_in_the_report(tmp_path):
    spoiled = loader({"a": Numbers(150, "a", bad=range(150))}, quarantine=tmp_path / "q.jsonl")
    with pytest.raises(DataError, match=r"(?s)datasets\.a: 100 samples in a row.*(a\[\d+\] bad_text.*){3}") as told:
        take(spoiled, 1)
    assert told.value.exit_code == 3
    assert spoiled.bad.report()["datasets"]["a"]["bad"] == 100
    assert len((tmp_path / "q.jsonl").read_text().splitlines()) == 100


def test_a_state_from_before_the_counts_by_data_set_is_taken_up():
    counts = BadSamples(0.01)
    counts.load_state({"good": 90, "reasons": {"bad_json": 2}, "first": ["a[1] bad_json: row 1"]})
    counts.count({"a": 10}, [BadSample("a", 5, 5, "bad_text", "row 5")])
    assert (counts.good, counts.total) == (100, 3)
    assert counts.reasons == {"bad_json": 2, "bad_text": 1}


def test_a_report_can_be_written_as_json(tmp_path: Path):
    report = BadSamples(0.01).report()
    assert json.loads(json.dumps(report)) == report == {
        "good": 0, "bad": 0, "bad_fraction": 0.0, "max_bad_fraction": 0.01, "datasets": {}
    }  # fmt: skip

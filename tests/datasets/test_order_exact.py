"""The sequence of samples does not depend on workers, ranks or stops: tables, tars, mixtures, grouped or not."""

from __future__ import annotations

import io
import json
import random
import tarfile
import time
from collections import Counter
from itertools import chain

import pytest
from numbers_set import Numbers, ids_of, loader, take

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.registry import Part, registry

GROUPED = {"group_by_length": True, "group_window": 36}
FORMS = {"plain": {}, "grouped": GROUPED, "exact": {"exact_epoch": True}, "both": {"exact_epoch": True, **GROUPED}}
GLOBAL = 12  # rows of a step over all ranks
STEPS = 90


def caption(i):
    return f"number {i} " + "and so on " * (i * 7 % 5)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """60 rows, of which two cannot be used."""
    path = tmp_path_factory.mktemp("table") / "rows.jsonl"
    rows = [{"id": f"t{i}", "caption": "" if i in (11, 12) else caption(i)} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"annotations": {"train": str(path)}, "fields": {"id": "id", "text": "caption"}, "prompts": ["a", "bb"]}
    return registry.build(Part("builder", "pairs", values), name="table", split="train")


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Three tars of 40, 7 and 20 samples, of which two cannot be used."""
    folder, number = tmp_path_factory.mktemp("tars"), 0
    for shard, count in enumerate((40, 7, 20)):
        with tarfile.open(folder / f"{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for _ in range(count):
                text = "{" if number in (3, 50) else json.dumps({"caption": caption(number)})
                info = tarfile.TarInfo(f"{number:04d}.json")
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
                number += 1

    def build(**more):
        values = {"annotations": {"train": str(folder / "{0..2}.tar")}, "fields": {"text": "json.caption"}, **more}
        return registry.build(Part("builder", "shards", values), name="tars", split="train")

    return build


def shard_orders():
    """The ways in which the builder of tars can order them."""
    fields = {f.name for f in registry.entry("builder", "shards").fields}
    return [{}, {"shuffle": "window", "window_shards": 2}] if "window_shards" in fields else [{}]


@pytest.fixture(scope="module", params=["table", "tars", "tars in windows", "mixture"])
def sets(request, table, tars):
    """Data sets and their ratios."""
    if request.param == "tars in windows" and len(shard_orders()) == 1:
        pytest.skip("tars have one order only")
    kinds = {
        "table": lambda: {"table": table},
        "tars": lambda: {"tars": tars()},
        "tars in windows": lambda: {"tars": tars(**shard_orders()[1])},
        "mixture": lambda: {"table": table, "tars": tars(), "n": Numbers(13, bad=[5], kinds=["image", "audio"])},
    }
    found = kinds[request.param]()
    return found, dict(zip(found, (3, 2, 1), strict=False))


@pytest.fixture(scope="module", params=FORMS)
def whole(request, sets):
    """Arguments of a loader, and what it gives when nobody stops it."""
    arguments, values = sets, FORMS[request.param]
    return arguments, values, take(loader(*arguments, batch_size=GLOBAL, **values), STEPS)


def test_stopped_at_any_of_fifty_random_steps_the_sequence_goes_on_with_any_number_of_ranks(whole):
    arguments, values, batches = whole
    random.seed(0)
    state = loader(*arguments, batch_size=GLOBAL, **values).state()
    for stop in sorted(random.sample(range(1, STEPS - 2), 50)):
        resumed = loader(*arguments, batch_size=GLOBAL, **values)
        resumed.load_state({**state, "position": position_after(batches, stop)})
        assert take(resumed, 2) == batches[stop : stop + 2], stop
        state = json.loads(json.dumps(resumed.state()))
        assert state["position"] == position_after(batches, stop + 2)


def position_after(batches, count):
    return sum(map(len, batches[:count]))


def test_one_rank_then_two_then_three_go_on_as_one_would(whole):
    arguments, values, batches = whole
    state, done = None, 0
    for ranks, count in ((1, 7), (2, 13), (3, 11), (1, 3)):
        together, state = by_ranks(arguments, values, ranks, count, state)
        assert together == batches[done : done + count], ranks
        done += count


def by_ranks(arguments, values, ranks, count, state):
    """What so many ranks give in `count` steps, put together in their order, and the state of the first."""
    parts = []
    for rank in range(ranks):
        part = loader(*arguments, batch_size=GLOBAL // ranks, rank=rank, world_size=ranks, **values)
        if state:
            part.load_state(state)
        parts.append((part, take(part, count)))
    steps = zip(*(taken for _, taken in parts), strict=True)
    states = [part.state() for part, _ in parts]
    assert len({s["position"] for s in states}) == 1
    return [list(chain(*step)) for step in steps], states[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(table, tars, form, workers):
    arguments = {"table": table, "tars": tars(**shard_orders()[-1])}, {"table": 2, "tars": 1}
    alone = loader(*arguments, **FORMS[form])
    expected = take(alone, 40)
    helped = loader(*arguments, num_workers=workers, **FORMS[form])
    assert take(helped, 40) == expected
    assert helped.state() == alone.state()
    helped.close()


def test_several_micro_batches_of_one_rank_are_one_of_several_ranks(sets):
    for values in FORMS.values():
        whole = take(loader(*sets, batch_size=12, **values), 30)
        small = take(loader(*sets, batch_size=4, global_batch=12, **values), 90)
        assert [list(chain(*small[i : i + 3])) for i in range(0, 90, 3)] == whole


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("grouped", [{}, GROUPED])
def test_in_an_exact_epoch_no_sample_is_lost_or_doubled(sets, ranks, grouped):
    builders = {name: Numbers(len(builder), name) for name, builder in sets[0].items()}  # no stand-ins: each must come
    values = {"exact_epoch": True, **grouped}
    epoch = loader(builders, sets[1], **values).samples_per_epoch
    assert epoch == sum(map(len, builders.values()))
    steps = -(-epoch // GLOBAL)
    batches, state = by_ranks((builders, sets[1]), values, ranks, 2 * steps, None)
    assert state["position"] == 2 * epoch
    first, second = ids_of(batches[:steps]), ids_of(batches[steps:])
    everything = Counter(name for builder in builders.values() for name in builder.ids)
    assert Counter(first) == Counter(second) == everything
    assert first != second


@pytest.mark.parametrize(("count", "ranks", "rows"), [(3, 4, 2), (1, 3, 1), (5, 2, 8), (7, 3, 2)])
def test_a_set_smaller_than_the_batch_or_the_ranks_gives_every_rank_equally_many_rows(count, ranks, rows):
    for values in ({}, {"exact_epoch": True}, {"group_by_length": True}):
        parts = [
            loader({"n": Numbers(count)}, batch_size=rows, rank=rank, world_size=ranks, **values)
            for rank in range(ranks)
        ]
        for batches in zip(*(iter(part) for part in parts), strict=False):
            assert [len(batch) for batch in batches] == [rows] * ranks
            real = [s.id for batch in batches for s in batch.samples[: len(batch) - batch.fillers]]
            if "exact_epoch" in values:
                assert len(set(real)) == len(real)
            if parts[0].position >= 4 * count:
                break


def test_a_mixture_gives_every_set_its_share_and_a_set_of_ratio_zero_nothing():
    sets = {"a": Numbers(5000, "a"), "b": Numbers(333, "b"), "c": Numbers(9, "c")}
    exact = loader(sets, {"a": 1, "b": 1, "c": 0}, exact_epoch=True)
    found = [exact.schedule.at(p) for p in range(5333)]
    assert Counter(p.dataset for p in found) == {"a": 5000, "b": 333}
    assert len({(p.dataset, p.index) for p in found}) == 5333
    quarters = [Counter(p.dataset for p in found[i * 1333 : (i + 1) * 1333])["b"] for i in range(4)]
    assert all(60 < count < 110 for count in quarters), quarters  # b is spread over the whole epoch


def test_the_order_of_a_run_cannot_be_changed_in_its_middle():
    sets = {"a": Numbers(40, "a")}
    grouped = loader(sets, **GROUPED).state()
    for state, other, said in (
        (grouped, {}, "run.group_by_length and run.group_window"),
        (grouped, {"group_by_length": True, "group_window": 60}, "run.group_window"),
        (loader(sets).state(), GROUPED, "run.group_by_length"),
        (loader(sets).state(), {"exact_epoch": True}, "run.exact_epoch"),
        ({**loader(sets).state(), "probe": "another"}, {}, "another order"),
    ):
        with pytest.raises(CheckpointError, match=said):
            loader(sets, **other).load_state(state)
    old = loader(sets).state()
    for key in ("exact_epoch", "replacement", "chunk", "window", "probe"):
        del old[key]
    loader(sets).load_state(old)  # a checkpoint from before these could be chosen


@pytest.mark.parametrize("window", [36, 0])
@pytest.mark.parametrize("rows", [4, 18])
def test_chunks_are_those_of_the_start_even_if_a_step_now_holds_more_or_less(rows, window):
    sets, values = {"n": Numbers(5000)}, {"group_by_length": True, "group_window": window}
    whole = ids_of(take(loader(sets, batch_size=GLOBAL, **values), 30))
    begun = loader(sets, batch_size=GLOBAL, **values)
    take(begun, 6)
    resumed = loader(sets, batch_size=rows, **values)
    resumed.load_state(begun.state())
    assert ids_of(take(resumed, 288 // rows)) == whole[72:]


@pytest.mark.parametrize("form", FORMS)
def test_resuming_near_the_end_of_a_long_epoch_takes_no_longer_than_starting(form):
    sets = {"n": Numbers(100_000)}

    def seconds(position):
        started = time.perf_counter()
        resumed = loader(sets, batch_size=32, **FORMS[form] | {"group_window": 0})
        resumed.load_state({**resumed.state(), "position": position})
        take(resumed, 1)
        return time.perf_counter() - started

    start, end = (min(seconds(position) for _ in range(2)) for position in (0, 99_008))
    assert end < start + 1


def test_the_order_is_that_of_every_version_before():
    sets = {"a": Numbers(23, "a", bad=[3, 4]), "b": Numbers(10, "b")}
    first = ids_of(take(loader(sets, {"a": 2, "b": 1}, seed=1, batch_size=4), 2))
    assert first == ["a22", "a19", "b7", "a14", "b3", "a5", "a5", "b2"]

"""Orders of shards: every epoch holds every sample once, few shards are needed at a time, and nothing is remembered."""

import random
from collections import Counter
from itertools import islice, pairwise

import pytest
import torch
from tar_making import shards, write_set

from minigpt4o.conversation.batch import Example
from minigpt4o.datasets.loader import TrainLoader
from minigpt4o.datasets.order import MixtureSchedule, draw, permute
from minigpt4o.datasets.shards.window_order import AHEAD, WindowOrder, shard_order

UNEVEN = [7, 0, 30, 1, 12, 25, 25, 3, 40, 18, 0, 9, 22, 5, 31, 16]


def shard_of(counts):
    return [number for number, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("window", [1, 2, 3, 5, 13, 14, 100])
@pytest.mark.parametrize("counts", [UNEVEN, [1] * 40, [100], [3, 3], [0, 0, 5]], ids=str)
def test_every_epoch_is_a_permutation_of_all_samples(window, counts):
    for epoch in range(3):
        order = WindowOrder("seed", epoch, counts, window)
        assert sorted(map(order, range(sum(counts)))) == list(range(sum(counts)))


def test_epochs_and_seeds_differ_and_come_again():
    first, again, second, other = (
        [WindowOrder(seed, epoch, UNEVEN, 4)(i) for i in range(sum(UNEVEN))]
        for seed, epoch in (("a", 0), ("a", 0), ("a", 1), ("b", 0))
    )
    assert first == again
    assert first != second
    assert first != other


def test_the_order_does_not_depend_on_which_turns_were_asked_before():
    straight = [WindowOrder("x", 1, UNEVEN, 3)(i) for i in range(sum(UNEVEN))]
    turns = list(range(sum(UNEVEN)))
    random.Random(0).shuffle(turns)
    order = WindowOrder("x", 1, UNEVEN, 3)
    found = {turn: order(turn) for turn in turns}
    assert [found[turn] for turn in range(sum(UNEVEN))] == straight
    for wrong in (-1, sum(UNEVEN)):
        with pytest.raises(IndexError):
            order(wrong)


@pytest.mark.parametrize("window", [1, 4, 16])
def test_while_one_shard_goes_by_at_most_one_more_than_the_window_is_touched(window):
    counts = [50] * 60
    where = shard_of(counts)
    order = WindowOrder("near", 2, counts, window)
    shards_seen = [where[order(turn)] for turn in range(sum(counts))]
    slot = 50 // window * window or 50
    widest = max(len(set(shards_seen[i : i + slot])) for i in range(len(shards_seen) - slot))
    assert widest <= window + 1
    assert window == 1 or widest > window // 2


def test_a_window_mixes_its_shards_and_the_inside_of_each():
    counts = [100] * 50
    where = shard_of(counts)
    order = WindowOrder("mix", 0, counts, 8)
    line = [order(turn) for turn in range(5000)]
    assert sum(where[a] == where[b] for a, b in pairwise(line)) < 5000 / 8 * 1.3
    assert sum(abs(a - b) == 1 for a, b in pairwise(line)) < 25
    early = Counter(i % 100 for i in line[:1000])
    assert len(early) > 90  # samples from all places inside their shards


def test_coming_shards_are_told_before_they_are_needed():
    counts = [40] * 30
    where = shard_of(counts)
    told, late = set(), []
    order = WindowOrder("x", 0, counts, 4, told.update)
    for turn in range(sum(counts)):
        shard = where[order(turn)]
        if turn >= 40 and shard not in told:
            late.append(shard)
    assert set(late) <= {where[WindowOrder("x", 0, counts, 4)(turn)] for turn in range(40)}


def test_without_shuffling_shards_follow_each_other():
    told = []
    order = shard_order("x", 0, [2, 0, 3, 1], 0, told.append)
    assert [order(i) for i in range(6)] == list(range(6))
    assert told[0] == [1, 2][:AHEAD]
    with pytest.raises(IndexError):
        order(6)


def test_a_builder_offers_the_order_its_configuration_names(tmp_path):
    write_set(tmp_path, [9, 4, 6, 5])
    full = shards(tmp_path / "*.tar")
    assert [full.order("0/tars", 3)(i) for i in range(24)] == [permute("0/tars", 3, 24)(i) for i in range(24)]
    window = shards(tmp_path / "*.tar", shuffle="window", window_shards=2, max_samples=17)
    order = window.order("0/tars", 0)
    assert sorted(map(order, range(17))) == list(range(17))
    none = shards(tmp_path / "*.tar", shuffle="none")
    assert [none.order(5, 6)(i) for i in range(24)] == list(range(24))


def test_a_mixture_takes_the_order_of_a_builder_that_has_one():
    sizes, ratios = {"a": 30, "b": 7, "c": 5}, {"a": 2, "b": 1, "c": 1}
    plain = MixtureSchedule(sizes, ratios, seed=9)
    orders = {"a": lambda seed, epoch: lambda turn: (turn + epoch) % 30, "b": None}
    own = MixtureSchedule(sizes, ratios, seed=9, orders=orders)
    for position in range(200):
        before, after = plain.at(position), own.at(position)
        assert (before.dataset, before.epoch, before.turn) == (after.dataset, after.epoch, after.turn)
        expected = (after.turn + after.epoch) % 30 if after.dataset == "a" else before.index
        assert after.index == expected


def test_with_replacement_every_draw_is_independent_and_each_sample_equally_likely():
    schedule = MixtureSchedule({"a": 10}, {"a": 1}, seed=3, replacement=["a"])
    drawn = [schedule.at(position).index for position in range(20_000)]
    counts = Counter(drawn)
    assert sum((counts[i] - 2000) ** 2 / 2000 for i in range(10)) < 30
    assert any(len(set(drawn[i : i + 10])) < 10 for i in range(0, 100, 10))
    pairs = Counter(pairwise(drawn))
    assert sum((pairs[a, b] - 200) ** 2 / 200 for a in range(10) for b in range(10)) < 160
    assert [MixtureSchedule({"a": 10}, {"a": 1}, seed=3, replacement=["a"]).at(p).index for p in range(50)] == drawn[
        :50
    ]
    assert draw("x", 0, 10**12)(5) != draw("x", 1, 10**12)(5)


class Words:
    """Samples as examples of one token."""

    def example(self, sample, rng):
        one = torch.tensor([1])
        return Example(one, one, [], [], sample)

    prompt = example


def taken(folder, count, **values):
    builder = shards(folder / "*.tar", shuffle="window", window_shards=2)
    loader = TrainLoader({"tars": builder}, {"tars": 1}, {"tars": Words()}, seed=4, batch_size=4, **values)
    found = [sample.id for batch in islice(loader, count) for sample in batch.samples]
    loader.close()
    return found


def test_workers_and_stops_change_nothing_in_the_order_of_windows(tmp_path):
    write_set(tmp_path, [9, 4, 6, 5])
    alone = taken(tmp_path, 18)
    assert sorted(alone[:24]) == sorted(alone[24:48]) == [f"{i:04d}" for i in range(24)]
    assert alone[:24] != alone[24:48]
    assert taken(tmp_path, 18, num_workers=2) == alone
    assert taken(tmp_path, 5, start_position=28) == alone[28:48]

"""Batches of like samples: less padding, equal work for every rank, and no sample moved out of its window."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from numbers_set import Numbers, loader, take

from minigpt4o.common.errors import SkipSample
from minigpt4o.datasets.grouping import Grouping, grouped, kind_and_size, spread, window_of
from minigpt4o.datasets.order import MixtureSchedule

SAMPLES = 16_384


def lengths_of(kind):
    """Tokens of the texts of so many samples, log-normal as captions and conversations are."""
    rng = random.Random(kind)
    if kind == "captions":  # median 12 words, cut at 160
        return [min(160, max(1, round(rng.lognormvariate(2.5, 0.6)))) for _ in range(SAMPLES)], 32
    return [min(2000, max(8, round(rng.lognormvariate(5.0, 0.75)))) for _ in range(SAMPLES)], 32  # 233 with the picture


def padded_over_real(lengths, order, rows, media):
    padded = 0
    for start in range(0, len(order), rows):
        batch = [lengths[i] + media for i in order[start : start + rows]]
        padded += max(batch) * len(batch)
    return padded / sum(lengths[i] + media for i in order)


@pytest.mark.parametrize(("kind", "target"), [("captions", 1.10), ("chat", 1.20)])
@pytest.mark.parametrize("rows", [12, 64])
@pytest.mark.parametrize("ranks", [1, 8])
def test_padding_is_less_than_the_target_and_far_less_than_without(kind, target, rows, ranks):
    lengths, media = lengths_of(kind)
    hints = [max(1, round(length * random.Random(i).uniform(3.8, 4.7))) for i, length in enumerate(lengths)]  # bytes
    schedule = MixtureSchedule({"n": SAMPLES}, {"n": 1}, seed=0)
    chunk = rows * ranks
    window = window_of(0, chunk)
    groups = Grouping(schedule, {"n": Numbers(SAMPLES, lengths=hints)}, chunk=chunk, window=window)
    slots = range(max(SAMPLES // window, 1) * window)
    plain = padded_over_real(lengths, [schedule.at(p).index for p in slots], rows, media)
    like = padded_over_real(lengths, [schedule.at(groups.position(p)).index for p in slots], rows, media)
    assert like <= target < plain, (like, plain)
    assert like - 1 < (plain - 1) / 4


def test_a_window_holds_the_samples_it_held_before():
    schedule = MixtureSchedule({"a": 50, "b": 31}, {"a": 2, "b": 1}, seed=3)
    sets = {"a": Numbers(50, "a"), "b": Numbers(31, "b", kinds=["image", "audio"])}
    groups = Grouping(schedule, sets, chunk=6, window=30)
    for number in range(5):
        window = range(30 * number, 30 * number + 30)
        assert sorted(map(groups.position, window)) == list(window)
    fresh = Grouping(schedule, sets, chunk=6, window=30)
    assert [fresh.position(slot) for slot in (149, 3, 77)] == [groups.position(slot) for slot in (149, 3, 77)]
    assert any(groups.position(slot) != slot for slot in range(30))


def test_windows_end_with_an_exact_epoch():
    sets = {"a": Numbers(50, "a")}
    groups = Grouping(MixtureSchedule({"a": 50}, {"a": 1}, 0), sets, chunk=4, window=16, epoch=50)
    for epoch in (0, 1):
        for first, end in ((0, 16), (16, 32), (32, 48), (48, 50)):
            window = range(50 * epoch + first, 50 * epoch + end)
            assert sorted(map(groups.position, window)) == list(window)


def test_a_chunk_mixes_kinds_of_media_only_where_one_ends():
    rng = random.Random(1)
    samples = [(rng.choice(["audio", "image", "text"]), rng.randrange(100)) for _ in range(200)]
    order = grouped(samples, 10, "seed")
    assert sorted(order) == list(range(200))
    chunks = [order[i : i + 10] for i in range(0, 200, 10)]
    mixed = [chunk for chunk in chunks if len({samples[i][0] for i in chunk}) > 1]
    assert len(mixed) <= 2
    spans = [max(samples[i][1] for i in chunk) - min(samples[i][1] for i in chunk) for chunk in chunks]
    assert max(spans) < 40
    lengths = [samples[chunk[0]][1] for chunk in chunks]
    assert lengths != sorted(lengths)
    assert grouped(samples, 10, "seed") == order != grouped(samples, 10, "other")


def test_every_share_of_a_chunk_is_the_same_work():
    lengths = sorted(lengths_of("chat")[0][:256])
    laid = [lengths[i] for i in spread(range(256), 12345)]
    assert sorted(laid) == lengths
    for ranks in (2, 3, 4, 8):
        size = 256 // ranks
        work = [sum(laid[r * size : (r + 1) * size]) for r in range(ranks)]
        straight = [sum(lengths[r * size : (r + 1) * size]) for r in range(ranks)]
        assert max(work) / min(work) - 1 < (max(straight) / min(straight) - 1) / 4, (ranks, work)


def test_builders_that_tell_nothing_are_grouped_by_nothing():
    class Mute:
        pass

    class Broken(Numbers):
        def size_hint(self, index):
            raise SkipSample("bad_json", "row 3")

    assert kind_and_size(Mute(), 3) == ("", 0)
    assert kind_and_size(Broken(5, kinds=["image"]), 3) == ("", 0)
    assert kind_and_size(Numbers(5, kinds=["image"]), 3) == ("image", 1)


def test_a_sample_learns_the_same_text_whether_it_is_grouped_or_not():
    sets = {"a": Numbers(36, "a", lengths=list(range(36)))}
    plain, like = loader(sets), loader(sets, group_by_length=True, group_window=36)
    one, other = take(plain, 6), take(like, 6)
    assert one != other
    rows, alike = (Counter(repr(row) for batch in batches for row in batch) for batches in (one, other))
    assert rows == alike
    assert like.state()["chunk"] == 6 and like.state()["window"] == 36
    assert window_of(100, 48) == 144 and window_of(0, 128) == 8192 and window_of(0, 8) == 4096

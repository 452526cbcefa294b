"""The order of samples is a pure function that loses nothing and repeats nothing."""

from collections import Counter
from itertools import pairwise

import pytest

from minigpt4o.datasets.order import MixtureSchedule, block_shares, derive, permute


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100, 101, 1000, 4099])
def test_a_permutation_meets_every_index_once(n):
    order = permute(5, 0, n)
    assert sorted(map(order, range(n))) == list(range(n))


def test_every_epoch_has_another_order_and_the_same_one_again():
    first, second = ([permute(3, epoch, 500)(i) for i in range(500)] for epoch in (0, 1))
    assert first != second
    assert first == [permute(3, 0, 500)(i) for i in range(500)]
    assert first != [permute(4, 0, 500)(i) for i in range(500)]


@pytest.mark.parametrize("n", [5, 12, 97])
def test_every_index_comes_first_about_equally_often(n):
    draws = 200 * n
    counts = Counter(permute("fair", epoch, n)(epoch % n) for epoch in range(draws))
    chi2 = sum((counts[i] - 200) ** 2 / 200 for i in range(n))
    assert chi2 < n + 5 * (2 * n) ** 0.5, counts


def test_neighbours_do_not_stay_neighbours():
    order = [permute(0, 0, 10_000)(i) for i in range(10_000)]
    near = sum(abs(a - b) < 10 for a, b in pairwise(order))
    assert near < 60  # 20 are expected of a random order


def test_a_huge_set_costs_no_memory():
    order = permute(1, 0, 10**12)
    assert len({order(i) for i in range(100)}) == 100
    assert order(10**12 - 1) < 10**12


def test_seeds_are_the_same_on_every_machine():
    assert derive("a", 1) == 13924241962069754241
    assert derive("a", 1) != derive("a1")


def test_shares_are_the_ratios_as_small_whole_numbers():
    assert block_shares({"a": 2, "b": 1}) == {"a": 2, "b": 1}
    assert block_shares({"a": 0.3, "b": 0.7}) == {"a": 3, "b": 7}
    assert block_shares({"a": 100, "b": 100}) == {"a": 1, "b": 1}
    assert block_shares({"a": 1, "b": 0}) == {"a": 1}
    shares = block_shares({"a": 3.14159, "b": 2.71828, "c": 1e-9})
    assert shares["c"] == 1
    assert abs(shares["a"] / shares["b"] - 3.14159 / 2.71828) < 1e-3
    for wrong in ({"a": -1.0, "b": 2.0}, {"a": 0.0}, {"a": float("nan")}):
        with pytest.raises(ValueError, match="ratios"):
            block_shares(wrong)


def test_each_data_set_of_a_mixture_is_gone_through_before_it_repeats():
    schedule = MixtureSchedule({"a": 30, "b": 7}, {"a": 2, "b": 1}, seed=9)
    places = [schedule.at(p) for p in range(90)]
    assert Counter(p.dataset for p in places) == {"a": 60, "b": 30}
    for name, size in (("a", 30), ("b", 7)):
        for epoch in (0, 1):
            seen = [p.index for p in places if p.dataset == name and p.epoch == epoch]
            assert sorted(seen) == list(range(size))


def test_proportions_hold_in_every_block_and_positions_need_no_history():
    schedule = MixtureSchedule({"a": 11, "b": 13, "c": 5}, {"a": 5, "b": 3, "c": 2}, seed=1)
    for block in range(20):
        names = Counter(schedule.at(10 * block + i).dataset for i in range(10))
        assert names == {"a": 5, "b": 3, "c": 2}
    fresh = MixtureSchedule({"a": 11, "b": 13, "c": 5}, {"a": 5, "b": 3, "c": 2}, seed=1)
    assert fresh.at(123_456) == schedule.at(123_456)
    orders = {tuple(schedule.at(10 * block + i).dataset for i in range(10)) for block in range(20)}
    assert len(orders) > 10

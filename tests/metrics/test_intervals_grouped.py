"""Questions about one picture are no independent draws: intervals that draw them together hold what they say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from minigpt4o.metrics.intervals import bootstrap, bootstrap_corpus, mcnemar, paired
from minigpt4o.metrics.result import Measured, mean

PICTURES, QUESTIONS = 60, 8


def drawn(seed: int) -> list[float]:
    """Right answers, each picture as easy as it happens to be; the true share is a half."""
    rng = np.random.default_rng(seed)
    easy = rng.uniform(size=PICTURES)
    return [float(x) for x in (rng.random((PICTURES, QUESTIONS)) < easy[:, None]).ravel()]


GROUPS = [f"picture {i // QUESTIONS}" for i in range(PICTURES * QUESTIONS)]


def test_a_95_percent_interval_holds_the_truth_95_times_of_100_and_without_groups_it_does_not() -> None:
    held = {True: 0, False: 0}
    for seed in range(100):
        for grouped in held:
            found = bootstrap(drawn(seed), 200, seed, groups=GROUPS if grouped else ())
            held[grouped] += found.low <= 0.5 <= found.high
    assert held[True] >= 88 and held[False] <= 80


def test_groups_of_one_each_or_one_of_all_change_nothing() -> None:
    values = drawn(0)
    alone = bootstrap(values, 100)
    assert bootstrap(values, 100, groups=[str(i) for i in range(len(values))]) == alone
    assert bootstrap(values, 100, groups=["one"] * len(values)) == alone
    told = bootstrap(values, 100, groups=GROUPS)
    assert (told.value, told.n) == (alone.value, alone.n) and told.high - told.low > 1.5 * (alone.high - alone.low)
    assert told.method.startswith(f"bootstrap of {PICTURES} groups that share their media")


def test_sums_and_pairs_are_drawn_by_group_too_and_a_subset_keeps_its_groups() -> None:
    a, b = drawn(1), drawn(2)
    rows = [[value, 1.0] for value in a]
    wide = bootstrap_corpus(rows, lambda sums: sums[0] / sums[1], 200, groups=GROUPS)
    assert wide.low == bootstrap(a, 200, groups=GROUPS).low
    one, two = (Measured(mean(x), x, "right", groups=GROUPS) for x in (a, b))
    blind = replace(two, groups=[str(i) for i in range(len(b))])  # it names no picture
    assert paired(one, blind, 200) == paired(one, two, 200) != paired(replace(one, groups=[]), blind, 200)
    assert one.subset([0, 9]).groups == ["picture 0", "picture 1"]


def two_models(seed: int) -> tuple[list[float], list[float]]:
    """Equally good, each with pictures of its own that it finds easy."""
    return drawn(2 * seed), drawn(2 * seed + 1)


def test_mcnemar_by_picture_is_wrong_once_in_twenty_and_by_question_six_times_as_often() -> None:
    found = dict.fromkeys((True, False), 0)
    for seed in range(200):
        for grouped in found:
            found[grouped] += mcnemar(*two_models(seed), groups=GROUPS if grouped else ()).p < 0.05
    assert found[True] <= 20 and found[False] >= 40


def test_mcnemar_of_groups_counts_out_all_signs_and_of_groups_of_one_is_mcnemars() -> None:
    first, second = two_models(3)
    alone = mcnemar(first, second)
    assert mcnemar(first, second, groups=[str(i) for i in range(len(first))]) == alone
    assert mcnemar(first, second, groups=["one"] * len(first)) == alone
    told = mcnemar(first, second, groups=GROUPS)
    assert (told.only_first, told.only_second, told.n) == (alone.only_first, alone.only_second, alone.n)
    assert told.p > alone.p and "tosses of 60 groups that share their media" in told.method
    differences = [3, -1, 2, 2, -4, 1, 5]  # of seven pictures: right in the first alone less right in the second
    one = [1.0 if d > 0 else 0.0 for d in differences for _ in range(abs(d))]
    two = [1.0 - value for value in one]
    names = [f"picture {i}" for i, d in enumerate(differences) for _ in range(abs(d))]
    far = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= 8 for signs in product((1, -1), repeat=7)
    ]
    assert mcnemar(one, two, groups=names).p == pytest.approx(mean(list(map(float, far))))


def test_more_differences_than_can_be_counted_out_are_told_by_the_normal_law() -> None:
    rng = np.random.default_rng(0)
    names = [f"picture {i // 3}" for i in range(30_000)]
    first, second, better = ([float(x) for x in rng.random(30_000) < share] for share in (0.5, 0.5, 0.52))
    even, clear = (mcnemar(first, other, groups=names) for other in (second, better))
    assert even.only_first + even.only_second > 10_000
    assert even.p == pytest.approx(mcnemar(first, second).p, abs=0.05)  # nothing in common: as without groups
    assert clear.p < 1e-4 and "10000 groups" in clear.method

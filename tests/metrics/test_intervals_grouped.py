"""Questions about one picture are no independent draws: intervals that draw them together hold what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minigpt4o.metrics.intervals import bootstrap, bootstrap_corpus, paired
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

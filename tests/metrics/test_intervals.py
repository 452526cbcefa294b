"""Intervals are seeded, cover what they should, and do not claim certainty that a small sample cannot give."""

from __future__ import annotations

import numpy as np
import pytest

from minigpt4o.metrics.caption import bleu
from minigpt4o.metrics.intervals import bootstrap, bootstrap_corpus, paired_difference


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not() -> None:
    values = list(np.random.default_rng(0).random(50))
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1).low != bootstrap(values, seed=2).low


def test_the_interval_of_a_share_is_about_two_standard_errors_wide() -> None:
    found = bootstrap([1.0] * 80 + [0.0] * 20, rounds=4000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - 1.96 * 0.04, abs=0.012)
    assert found.high == pytest.approx(0.8 + 1.96 * 0.04, abs=0.012)


def test_it_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    draw = np.random.default_rng(3)
    found = [bootstrap(draw.random(60) < 0.7, rounds=400, seed=i) for i in range(200)]
    assert 0.88 <= np.mean([one.low <= 0.7 <= one.high for one in found]) <= 0.99


def test_all_right_is_not_certainty() -> None:
    right, wrong = bootstrap([1.0] * 20), bootstrap([0.0] * 20)
    assert right.high == 1.0
    assert right.low == pytest.approx(0.8389, abs=1e-4)  # Wilson
    assert (wrong.low, wrong.high) == (0.0, pytest.approx(0.1611, abs=1e-4))


def test_nothing_measured_says_nothing() -> None:
    assert (bootstrap([]).n, bootstrap([]).low, bootstrap([]).high) == (0, 0.0, 1.0)


def test_pairs_that_differ_always_by_the_same_give_a_narrow_interval() -> None:
    a = list(np.random.default_rng(0).random(40))
    found = paired_difference([x + 0.2 for x in a], a)
    assert found.value == pytest.approx(0.2)
    assert found.high - found.low < 1e-9
    assert paired_difference([1, 0] * 20, [0, 1] * 20).low < 0 < paired_difference([1, 0] * 20, [0, 1] * 20).high


def test_a_corpus_metric_is_computed_from_resampled_sums() -> None:
    answers = [f"a red star number {i} is here".split() for i in range(30)]
    references = [[f"a {'red' if i % 3 else 'blue'} star number {i} is here".split()] for i in range(30)]
    measured = bleu(answers, references)
    assert measured.corpus is not None
    found = bootstrap_corpus(measured.statistics, measured.corpus, rounds=200)
    assert found.value == pytest.approx(measured.value)
    assert found.low < measured.value < found.high


def test_a_subset_is_scored_like_a_set_of_its_own() -> None:
    answers = [["a", "red", "star", "shines"], ["a", "dog", "runs", "fast"]]
    references = [[["a", "red", "star", "shines"]], [["a", "cat", "runs", "fast"]]]
    assert bleu(answers, references).subset([1]).value == bleu(answers[1:], references[1:]).value

"""Two runs on the same samples: McNemar's exact test, and paired intervals of corpus metrics."""

from __future__ import annotations

import random

import pytest

from minigpt4o.metrics.caption import bleu
from minigpt4o.metrics.intervals import bootstrap_corpus, mcnemar, paired, paired_difference
from minigpt4o.metrics.result import Measured, mean
from minigpt4o.metrics.speech import wer


@pytest.mark.parametrize(
    ("alone", "other", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (12, 2, 0.012939453125)]
)
def test_mcnemar_is_the_two_sided_binomial(alone: int, other: int, p: float) -> None:
    first = [1.0] * alone + [0.0] * other + [1.0] * 7
    second = [0.0] * alone + [1.0] * other + [1.0] * 7
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.n) == (alone, other, alone + other + 7)
    assert found.p == pytest.approx(p, rel=1e-9)


def test_mcnemar_of_a_hundred_thousand_samples_does_not_overflow() -> None:
    found = mcnemar([1.0] * 50_500 + [0.0] * 49_500, [0.0] * 50_500 + [1.0] * 49_500)
    assert found.p == pytest.approx(0.0016, abs=1e-4)


def runs() -> tuple[Measured, Measured]:
    draw = random.Random(0)
    truths = [[draw.choice("abcdefgh") for _ in range(9)] for _ in range(60)]
    good = [[w if draw.random() < 0.9 else "x" for w in one] for one in truths]
    bad = [[w if draw.random() < 0.95 else "x" for w in one] for one in good]
    return bleu(good, [[one] for one in truths]), bleu(bad, [[one] for one in truths])


def test_a_corpus_metric_is_computed_anew_for_both_runs_in_each_round() -> None:
    good, bad = runs()
    found = paired(good, bad, rounds=300)
    assert found.value == pytest.approx(good.value - bad.value)
    assert 0 < found.low < found.value < found.high
    assert found == paired(good, bad, rounds=300)


def test_pairing_is_narrower_than_two_intervals_apart() -> None:
    good, bad = runs()
    assert good.corpus is not None
    alone = bootstrap_corpus(good.statistics, good.corpus, rounds=300)
    both = paired(good, bad, rounds=300)
    assert both.high - both.low < alone.high - alone.low


def test_means_are_paired_by_their_samples() -> None:
    first, second = Measured(0.6, [1, 1, 1, 0, 0], "x"), Measured(0.4, [1, 1, 0, 0, 0], "x")
    assert paired(first, second) == paired_difference(first.each, second.each)
    assert paired(wer(["a"] * 5, ["a"] * 5), wer(["b"] * 5, ["a"] * 5)).value == -1.0
    assert mean([]) == 0.0

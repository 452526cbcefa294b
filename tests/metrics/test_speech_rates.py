"""Word and character error rates: corpus rates of sums, exact edit distances, named normalisers."""

from __future__ import annotations

import random

import pytest

from minigpt4o.metrics.edits import distance
from minigpt4o.metrics.intervals import bootstrap_corpus
from minigpt4o.metrics.speech import cer, plain_words, wer, whisper_basic


def slow(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_the_distance_is_that_of_the_table() -> None:
    draw = random.Random(0)
    for _ in range(300):
        a, b = ("".join(draw.choice("abc") for _ in range(draw.randint(0, 40))) for _ in "ab")
        assert distance(a, b) == slow(a, b) == distance(b, a)
    assert distance("kitten", "sitting") == 3
    assert distance(["a", "red", "star"], ["a", "star"]) == 1
    assert distance("ab" * 20_000, "ba" * 2_000) == 36_000


def test_the_corpus_rate_is_edits_over_true_words_and_each_is_an_utterances_own() -> None:
    found = wer(["the cat sat", "hello", ""], ["The cat sat.", "hello there my friend", "yes"])
    assert found.each == [0.0, pytest.approx(3 / 4), 1.0]
    assert found.value == pytest.approx(4 / 8)
    assert found.better == "lower"
    assert found.unread == [False, False, True]
    assert found.corpus is not None
    interval = bootstrap_corpus(found.statistics, found.corpus, rounds=200)
    assert interval.value == found.value
    assert interval.low <= found.value <= interval.high
    assert found.subset([1]).value == pytest.approx(3 / 4)


def test_an_empty_truth_is_no_division_by_zero() -> None:
    assert wer(["", "two words"], ["", ""]).each == [0.0, 2.0]
    assert wer([], []).value == 0.0
    assert cer(["あ"], [""]).value == 1.0


def test_the_rate_may_be_above_one() -> None:
    assert wer(["a b c d"], ["x"]).value == 4.0


def test_normalisers_are_named_and_differ() -> None:
    assert plain_words("It’s 5%, [noise] (yes)!") == "it's 5 noise yes"
    assert whisper_basic("It’s 5%, [noise] (yes)!") == "it s 5"
    assert wer(["Hello, World"], ["hello world"], "none").value == 1.0
    assert wer(["Hello, World"], ["hello world"]).value == 0.0
    assert "whisper_basic" in wer(["a"], ["a"], "whisper_basic").variant


def test_japanese_is_rated_by_characters_without_its_punctuation() -> None:
    found = cer(["赤い丸です"], ["赤い星です。"])
    assert found.value == pytest.approx(1 / 5)
    assert wer(["赤い丸です"], ["赤い星です。"]).value == 1.0
    assert cer(["ア ﾊﾛｰ"], ["アハロー"]).value == 0.0  # NFKC, blanks not counted

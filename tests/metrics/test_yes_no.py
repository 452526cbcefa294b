"""POPE, memes, choices and classes: read from free text, never a division by zero, the unreadable counted."""

from __future__ import annotations

import pytest

from minigpt4o.metrics.choice import by_group, choice_accuracy, class_accuracy, read_choice, read_class, read_yes_no
from minigpt4o.metrics.intervals import Interval, bootstrap_corpus
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.yesno import memes, pope, read_pope, roc_auc, yes_no
from minigpt4o.tasks.base import score_of

ANSWERS = ["Yes, there is.", "no", "It is a dog.", "Yes", "No.", "yes"]
LABELS = ["yes", "no", "yes", "no", "yes", "yes"]


def test_popes_five_figures_count_the_unreadable_as_wrong_and_as_no_yes() -> None:
    found = pope(ANSWERS, LABELS)
    assert {name: round(one.value, 4) for name, one in found.items()} == {
        "accuracy": 0.5, "precision": 0.6667, "recall": 0.5, "f1": 0.5714, "yes_share": 0.5,
    }  # fmt: skip
    assert sum(found["f1"].unread) == 1


def test_popes_own_reading_takes_whatever_is_no_no_for_yes() -> None:
    assert [read_pope(text) for text in ("Not really", "it is not. Yes", "No, it", "a dog", "", "yes no")] == [
        "yes", "no", "no", "yes", "yes", "no",
    ]  # fmt: skip
    found = pope(ANSWERS, LABELS, "pope")
    # By the script: 4 yes of 6, 3 of them right.  "No." -> the first sentence is No
    assert (found["yes_share"].value, found["precision"].value) == (pytest.approx(4 / 6), pytest.approx(3 / 4))
    assert sum(found["accuracy"].unread) == 0
    assert read_pope(None) is None


@pytest.mark.parametrize("answers", [[], ["no", "no"], ["", None], ["?", "?"]])
@pytest.mark.parametrize("label", ["yes", "no"])
def test_nothing_said_or_nothing_true_divides_by_nothing(answers: list, label: str) -> None:
    for measured in pope(answers, [label] * len(answers)).values():
        assert 0.0 <= measured.value <= 1.0
        score = score_of(measured, rounds=20)
        assert 0.0 <= score.low <= score.value <= score.high <= 1.0
    assert {name for name, one in pope(answers, [label] * len(answers)).items() if one.corpus is not None} == {
        "precision", "recall", "f1",
    }  # fmt: skip


def test_where_all_are_right_the_accuracy_is_not_called_certain() -> None:
    score = score_of(pope(["yes", "no"] * 5, ["yes", "no"] * 5)["accuracy"])
    assert (score.value, score.high) == (1.0, 1.0) and 0.6 < score.low < 0.8 and score.interval.startswith("Wilson")


def test_memes_and_statements_take_labels_as_their_files_write_them() -> None:
    found = memes(["Yes", "no", "maybe"], [1, 0, 0], scores=[0.9, 0.2, 0.4])
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert found["auroc"].value == 1.0
    assert "auroc" not in memes(["yes"], [1])
    assert yes_no(["True", "the statement is false", "Yes"], [True, "False", "true"])["accuracy"].value == 1.0
    assert yes_no(["Yes.", "yes"], ["yes", "yes"], "equal")["accuracy"].each == [0.0, 1.0]


def test_the_area_under_roc_counts_ties_half_and_has_an_interval() -> None:
    scores, labels = [0.1, 0.4, 0.35, 0.8, 0.8, float("nan")], [0, 0, 1, 1, 0, 1]
    pairs = [(0.35, 0.1), (0.35, 0.4), (0.35, 0.8), (0.8, 0.1), (0.8, 0.4), (0.8, 0.8), (-1, 0.1), (-1, 0.4), (-1, 0.8)]
    found = roc_auc(scores, labels)
    assert found.value == pytest.approx(sum((a > b) + 0.5 * (a == b) for a, b in pairs) / 9)
    assert found.corpus is not None
    interval = bootstrap_corpus(found.statistics, found.corpus, rounds=300)
    assert interval.value == pytest.approx(found.value)
    assert interval.low < found.value < interval.high
    assert roc_auc([0.5, 0.6], [1, 1]).value == 0.5


def test_an_article_is_not_the_first_choice() -> None:
    choices = ["cat", "dog", "hot dog stand"]
    answers = ["A dog", "a cat", "B", "The answer is C.", "Option (B)", "b dog", "I do not know", "", "Z", None]
    assert [read_choice(one, choices) for one in answers] == [1, 0, 1, 2, 1, 1, None, None, None, None]
    assert read_choice("", ["", "x"]) is None


def test_a_choice_is_named_in_a_japanese_sentence() -> None:
    assert [read_choice(one, ["猫", "犬"]) for one in ("犬です。", "答えは猫", "猫か犬", "鳥")] == [1, 0, None, None]
    assert read_class("これは消防車の音です", ["車", "消防車"]) == "消防車"
    assert read_choice("concatenate", ["cat", "dog"]) is None


def test_choices_fall_apart_by_subject() -> None:
    measured = choice_accuracy(["A", "B", "?"], [["x", "y"]] * 3, [0, 0, 1])
    assert measured.each == [1.0, 0.0, 0.0]
    assert measured.unread == [False, False, True]
    groups = by_group(measured, ["natural", "social", "natural"])
    assert {name: one.value for name, one in groups.items()} == {"natural": 0.5, "social": 0.0}
    assert groups["natural"].unread == [False, True]


def test_a_class_is_read_whatever_joins_its_words() -> None:
    names = ["dog", "vacuum_cleaner", "fire", "crackling_fire", "door_wood_knock"]
    also = {"dog": ["barking"]}
    answers = ["Vacuum cleaner.", "this is a crackling fire", "fire", "a dog and a fire", "something", "Barking", ""]
    read = [read_class(one, names, also) for one in answers]
    assert read == ["vacuum_cleaner", "crackling_fire", "fire", None, None, "dog", None]
    found = class_accuracy(answers[:3], ["vacuum_cleaner", "fire", "fire"], names)
    assert found.each == [1.0, 0.0, 1.0]


def test_a_rate_over_nothing_is_0_with_no_certainty_and_draws_without_a_value_are_left_out() -> None:
    def span(measured: Measured) -> Interval:
        assert measured.corpus is not None
        return bootstrap_corpus(measured.statistics, measured.corpus, 500)

    nobody = yes_no(["no"] * 6, ["yes", "no"] * 3)
    assert (nobody["precision"].value, nobody["recall"].value) == (0.0, 0.0)
    found = span(nobody["precision"])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 1.0) and "nothing to divide by" in found.method
    assert span(nobody["recall"]).high == 0.0
    once = yes_no(["yes", *["no"] * 5], ["yes", *["no"] * 5])  # a third of all draws have no yes among them
    found = span(once["precision"])
    assert (found.low, found.high) == (1.0, 1.0) and "without a value left out" in found.method
    assert once["precision"].subset([1, 2]).value == 0.0


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("I am not sure.", None),
        ("I'm not entirely sure, but yes", "yes"),
        ("Not certain; no", "no"),
        ("I do not know", None),
        ("I can not tell whether it is", None),
        ("not", "no"),
        ("It is not a dog.", "no"),
        ("There is not, I am sure", "no"),
    ],
)
def test_who_is_not_sure_has_said_neither_yes_nor_no(answer: str, read: str | None) -> None:
    assert read_yes_no(answer) == read

"""Whatever a model says, a metric gives a number: empty, missing, endless, foreign, full of symbols."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from minigpt4o.metrics import vqa
from minigpt4o.metrics.boxes import box_metrics
from minigpt4o.metrics.caption import bleu, cider, cider_d, rouge_l
from minigpt4o.metrics.choice import choice_accuracy, class_accuracy
from minigpt4o.metrics.chrf import chrf
from minigpt4o.metrics.meteor import meteor_exact
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.speech import cer, wer
from minigpt4o.metrics.text import caption_words
from minigpt4o.metrics.yesno import pope

HARD: list = ["", None, "😀🇺🇸", "3.14 1,000", "?!…", "\n\t ", "赤い。", "a" * 3000, "word " * 3000, "\ud83d", 7]
TRUTHS: list = [["a dog", "dog"], [], [""], ["..."], [None], ["赤い"], ["a"], ["dog"] * 10, ["x", "y"], ["😀"], ["7"]]


def finite(measured: Measured) -> None:
    assert len(measured.each) == len(HARD)
    assert all(math.isfinite(one) for one in [measured.value, *measured.each])


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d, cider, meteor_exact])
def test_captions(metric: Callable[..., Measured]) -> None:
    candidates, references, _ = caption_words(HARD, TRUTHS, ["en", "ja"] * 5 + ["en"])
    finite(metric(candidates, references))
    assert metric([], []).value == 0.0


VARIANTS = ["official", "minigpt4", "lavis", "evalai", "simple", "equal", "vizwiz", "aokvqa", "anls"]


@pytest.mark.parametrize("name", VARIANTS)
def test_short_answers_with_the_empty_ones_counted(name: str) -> None:
    found = getattr(vqa, name)(HARD, TRUTHS)
    finite(found)
    assert sum(found.unread) == 3  # "", None and blanks
    assert getattr(vqa, name)([], []).value == 0.0


def test_letters_transcripts_choices_classes_and_yes() -> None:
    finite(chrf(HARD, TRUTHS))
    texts = [truth[0] if truth else None for truth in TRUTHS]
    for rate in (wer, cer):
        for normaliser in ("none", "basic", "whisper_basic"):
            finite(rate(HARD, texts, normaliser))  # type: ignore[arg-type]
    finite(choice_accuracy(HARD, [["", "dog"]] * len(HARD), [1] * len(HARD)))
    finite(class_accuracy(HARD, ["dog"] * len(HARD), ["dog", "", "a-b"]))
    for reading in ("first", "pope", "equal"):
        for measured in pope(HARD, ["yes", "no", ""] * 3 + ["yes", None], reading).values():  # type: ignore[arg-type]
            finite(measured)


def test_boxes_that_are_missing_inverted_or_endless() -> None:
    found = [None, (5, 5, 1, 1), (0, 0, 0, 0), (0, 0, 1e12, 1e12), (1, 1, 4, 4)]
    true = [[(0, 0, 1, 1)], [(0, 0, 9, 9)], [], [(0, 0, 9, 9)], [(1, 1, 4, 4)]]
    for plus_one in (False, True):
        measured = box_metrics(found, true, plus_one)
        assert list(measured) == ["acc@0.25", "acc@0.5", "acc@0.75", "mean_iou"]
        assert measured["acc@0.75"].each == [0.0, 0.0, 0.0, 0.0, 1.0]
        assert sum(measured["mean_iou"].unread) == 1
        assert "+1" in measured["mean_iou"].variant or not plus_one

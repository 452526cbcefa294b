"""Caption metrics agree with the COCO caption tools, on numbers worked by hand and on real captions."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from minigpt4o.metrics.attributes import attribute_accuracy
from minigpt4o.metrics.caption import bleu, cider, cider_d, rouge_l
from minigpt4o.metrics.text import english_words, japanese_words, words

DATA = Path(os.environ.get("MINIGPT4O_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "captions"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no captions in {DATA} (MINIGPT4O_TEST_DATA)")


def cut(*texts: str) -> list[list[str]]:
    return [words(text) for text in texts]


@needs_data
def test_real_audio_captions_score_as_with_the_coco_tools() -> None:
    with (DATA / "aac_1/example_1.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    expected = json.loads((DATA / "aac_1/expected.json").read_text())
    answers, references = cut(*(row[0] for row in rows)), [cut(*row[1:]) for row in rows]
    measured = cider_d(answers, references)
    assert measured.value == pytest.approx(expected["corpus"]["CIDEr"], abs=1e-9)
    assert measured.each[:20] == pytest.approx(expected["cider_per_item_first20"], abs=1e-6)
    for order in (1, 2, 3, 4):
        assert bleu(answers, references, order).value == pytest.approx(expected["corpus"][f"Bleu_{order}"], abs=1e-12)
    assert rouge_l(answers, references).value == pytest.approx(expected["corpus"]["ROUGE_L"], abs=1e-12)


@needs_data
@pytest.mark.parametrize("which", ["good", "bad"])
def test_captions_with_punctuation_score_as_with_the_coco_tools(which: str) -> None:
    folder = DATA / "clipscore_pair"
    expected = json.loads((folder / "recomputed_pycocoevalcap.json").read_text())[f"{which}_captions"]
    said = json.loads((folder / f"{which}_captions.json").read_text())
    truth = json.loads((folder / "refs.json").read_text())
    answers, references = cut(*(said[k] for k in sorted(truth))), [cut(*truth[k]) for k in sorted(truth)]
    assert cider_d(answers, references).value == pytest.approx(expected["CIDEr"], abs=1e-12)
    assert rouge_l(answers, references).value == pytest.approx(expected["ROUGE_L"], abs=1e-12)
    assert bleu(answers, references).value == pytest.approx(expected["Bleu_4"], abs=1e-12)


def test_short_captions_pay_the_brevity_penalty() -> None:
    references = [cut("a big red circle at the top")]
    assert bleu(cut("a big red circle at the top"), references).value == pytest.approx(1.0, abs=1e-6)
    assert bleu(cut("a big red circle"), references).value == pytest.approx(2.718281828 ** (1 - 7 / 4), abs=1e-6)


def test_cider_d_is_ten_for_a_caption_that_only_its_own_sample_has_and_punishes_repetition() -> None:
    references = [cut("a small blue star shines"), cut("two big dogs run fast")]
    assert cider_d(cut("a small blue star shines", "two big dogs run fast"), references).value == pytest.approx(10.0)
    once, twice = "a small blue star shines", "a small blue star shines a small blue star shines"
    assert cider_d(cut(twice, "x"), references).each[0] < cider_d(cut(once, "x"), references).each[0]
    assert cider(cut(twice, "x"), references).each[0] > cider_d(cut(twice, "x"), references).each[0]


def test_empty_answers_score_zero_and_do_not_crash() -> None:
    for metric in (bleu, rouge_l, cider_d, cider):
        assert metric(cut("", ""), [cut("a star"), cut("a dog")]).value == pytest.approx(0.0, abs=1e-6)


def test_english_words_are_those_of_the_penn_treebank() -> None:
    assert english_words('A man\'s dog, isn\'t it? "Yes" - (cannot)...') == [
        "a", "man", "'s", "dog", "is", "n't", "it", "yes", "-lrb-", "can", "not", "-rrb-",
    ]  # fmt: skip
    assert english_words("a black-and-white cat costs 3.5") == ["a", "black-and-white", "cat", "costs", "3.5"]


def test_japanese_is_cut_without_spaces_and_scores_above_zero() -> None:
    assert japanese_words("赤い丸、青い星。") != ["赤い丸、青い星。"]
    truth = [[words("左上に赤い丸があります。", "ja")], [words("青い星です", "ja")]]
    assert rouge_l([words("左上に赤い丸があります", "ja"), words("青い星", "ja")], truth).each[0] == 1.0


def scored(caption: str, objects: list[list[str]], language: str = "en") -> tuple[float, float]:
    others = [[["top left", "top", "left", "bottom", "small", "big", "red", "blue", "green", "circle", "star"]]]
    said, whole = attribute_accuracy([caption, ""], [objects, *others], [language, "en"])
    return said.each[0], whole.each[0]


def test_attributes_count_only_within_one_clause() -> None:
    objects = [["small", "red", "circle"], ["big", "blue", "star"]]
    assert scored("a small red circle and a big blue star", objects) == (1.0, 1.0)
    assert scored("a big blue star, a small red circle", objects) == (1.0, 1.0)
    assert scored("a small blue circle and a big red star", objects) == (pytest.approx(4 / 6), 0.0)
    assert scored("a small red circle", objects) == (0.5, 0.5)
    assert scored("", objects) == (0.0, 0.0)


def test_one_clause_cannot_serve_two_objects() -> None:
    assert scored("a red circle", [["red", "circle"], ["red", "circle"]]) == (0.5, 0.5)


def test_a_longer_place_does_not_contain_a_shorter_one() -> None:
    assert scored("a star at the top left", [["star", "top"]]) == (0.5, 0.0)
    assert scored("a star at the top left", [["star", "top left"]]) == (1.0, 1.0)


def test_japanese_attributes_are_found_inside_words_and_clauses() -> None:
    objects = [[["小さい", "赤い", "丸", "左上"]], [["大きい", "青い", "星", "上"]]]
    captions = ["左上に小さい赤い丸、下に大きい青い星", "左上に大きい青い星"]
    said, _ = attribute_accuracy(captions, objects, ["ja", "ja"])
    assert said.each == [1.0, 0.75]

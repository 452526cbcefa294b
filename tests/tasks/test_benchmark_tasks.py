"""Tasks of the benchmarks: choices ranked and read, classes, yes and no, expressions, speech, and a judge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Box, Sample, Turn
from minigpt4o.metrics import formats
from minigpt4o.tasks.base import Prediction
from minigpt4o.tasks.judged import OWN_RULE, read_pair, relative_of_sums

BROKEN = ["", "{", "{<1>}", "<" * 5000, "\ud800", "💥", "yes no" * 3000, "\x00", "A" * 9000]


def task(name: str, **values: object) -> Any:
    return registry.build(Part("task", name, values))


def said(answer: str, truth: list[str] | str, language: str = "en", name: str = "1", **meta: Any) -> Prediction:
    return Prediction(name, "set", language, "prompt", answer, [truth] if isinstance(truth, str) else truth, [], meta)


def asked(answers: list[str], **meta: Any) -> Sample:
    return Sample("1", [Turn("user", "q"), Turn("assistant", answers[0])], answers=answers, meta=meta)


CHOICES = ["a cat", "a very long dog", "ox"]


def ranked(answer: str, generated: str, truth: str, **totals: tuple[float, int]) -> Prediction:
    likelihoods = {choice: list(totals[key]) for choice, key in zip(CHOICES, ("cat", "dog", "ox"), strict=True)}
    return said(answer, truth, choices=CHOICES, likelihoods=likelihoods, generated=generated)


# ---- choices ----


def test_what_is_ranked_follows_the_configuration() -> None:
    sample = asked(["ox"], choices=["ox", "cow"])
    assert task("choice", by="generation").choices(sample) == []
    assert task("choice").choices(sample) == ["ox", "cow"]
    assert task("multiple_choice", rank="letter").choices(sample) == ["A", "B"]
    assert task("choice", by="both").generates(sample)
    assert not task("choice").generates(sample)
    assert task("choice", by="generation").generates(sample)


def test_one_way_to_weigh_length_may_be_right_where_the_other_is_wrong() -> None:
    row = ranked("a very long dog", "A", "a very long dog", cat=(-4.0, 2), dog=(-6.0, 6), ox=(-3.0, 1))
    found = task("choice", by="both").measure([row])
    assert {name: one.value for name, one in found.items()} == {
        "ranked_accuracy": 1.0,  # -1 per token
        "ranked_accuracy_sum": 0.0,  # the ox, at -3 in all
        "choice_accuracy": 0.0,  # A is the cat
    }
    assert "mean log-probability" in found["ranked_accuracy"].variant
    assert list(task("choice").measure([row])) == ["ranked_accuracy", "ranked_accuracy_sum"]
    assert list(task("choice", normalise="sum").measure([row])) == ["ranked_accuracy", "ranked_accuracy_mean"]


def test_answers_without_likelihoods_are_read_and_nan_is_no_likelihood() -> None:
    found = task("choice").measure([said("B", "dog", choices=["cat", "dog"])])
    assert {name: one.value for name, one in found.items()} == {"choice_accuracy": 1.0}
    row = ranked("a cat", "", "a cat", cat=(math.nan, 2), dog=(math.nan, 6), ox=(math.nan, 1))
    assert task("choice").measure([row])["ranked_accuracy_sum"].unread == [True]


def test_letters_are_ranked_and_handed_in_as_words_or_numbers() -> None:
    letters = task("choice", rank="letter", official_format="scienceqa")
    meta = {"choices": CHOICES, "likelihoods": {"A": [-9.0, 1], "B": [-1.0, 1], "C": [-5.0, 1]}}
    row = said("B", "a very long dog", **meta)
    assert letters.measure([row])["ranked_accuracy"].value == 1.0
    assert letters.to_official(row).answer == "1"
    assert letters.from_official(letters.to_official(row), asked([CHOICES[1]], **meta)) == CHOICES[1]
    assert letters.from_official(formats.Said("1", "-1"), asked([CHOICES[1]], **meta)) == ""
    words = task("choice", rank="letter", official_format="aokvqa")
    assert words.to_official(row).choice == "a very long dog"
    unread = said("who knows", "ox", choices=CHOICES)
    assert (words.to_official(unread).choice, letters.to_official(unread).answer) == ("", "-1")


def test_a_truth_among_no_choices_is_reached_by_no_answer() -> None:
    for answer in ("C", "cow", ""):
        assert task("choice", by="generation").measure([said(answer, "cow", choices=CHOICES)])[
            "choice_accuracy"
        ].each == [0.0]


# ---- classes ----


def test_a_class_is_named_or_ranked_and_synonyms_count() -> None:
    sounds = task("classification", classes=["dog", "crackling fire", "car horn"], also={"dog": ["puppy"]})
    assert sounds.choices(asked(["dog"])) == ["dog", "crackling fire", "car horn"]
    rows = [
        said("car horn", "dog", likelihoods={"dog": [-8.0, 1], "car horn": [-2.0, 2]}, generated="A puppy!"),
        said("crackling fire", "crackling_fire", likelihoods={"crackling fire": [-1.0, 2]}, generated="fire"),
    ]
    found = sounds.measure(rows)
    assert found["class_accuracy"].each == [1.0, 0.0]
    assert found["class_accuracy"].unread == [False, True]
    assert found["ranked_accuracy"].each == [0.0, 1.0]
    for wrong in ({}, {"classes": ["dog"], "also": {"dgo": ["puppy"]}}):
        with pytest.raises(ConfigError, match="task.classes: name them|dgo is none"):
            task("classification", **wrong)


def test_the_names_of_esc50_are_those_of_its_labels() -> None:
    from minigpt4o.datasets.known import known_set

    node = known_set("benchmark_esc50").node
    assert node["task"]["classes"] == list(node["labels"].values())
    assert len(set(node["task"]["classes"])) == 50


# ---- yes and no ----


def test_yes_and_no_have_five_figures_of_what_is_said_and_of_what_is_likelier() -> None:
    likelier = {"likelihoods": {"yes": [-1.0, 1], "no": [-2.0, 1]}}
    rows = [said("yes", "yes", generated="no", **likelier), said("yes", "no", generated="No, it is not.", **likelier)]
    found = task("yes_no", by="both").measure(rows)
    assert {name: found[name].value for name in ("accuracy", "recall", "yes_share")} == {
        "accuracy": 0.5,
        "recall": 0.0,
        "yes_share": 0.0,
    }
    assert (found["ranked_accuracy"].value, found["ranked_recall"].value, found["auroc"].value) == (0.5, 1.0, 0.5)
    assert list(task("pope").measure([said("Yes", "yes")])) == ["accuracy", "precision", "recall", "f1", "yes_share"]
    assert task("yes_no").measure([said("perhaps", "no")])["accuracy"].unread == [True]
    assert task("yes_no", reading="pope").measure([said("perhaps", "yes")])["accuracy"].value == 1.0


def test_yes_may_be_another_word() -> None:
    ja = task("yes_no", by="likelihood", yes="はい", no="いいえ")
    assert ja.choices(asked(["はい"])) == ["はい", "いいえ"]
    row = said("はい", "はい", "ja", likelihoods={"はい": [-1.0, 2], "いいえ": [-1.5, 3]})
    found = ja.measure([row])
    assert found["ranked_accuracy"].value == 1.0
    assert "はい" in found["ranked_accuracy"].variant


# ---- words ----


def test_captions_are_measured_by_what_is_asked_for_and_numbered_by_their_picture() -> None:
    names = ["chrf", "bleu_1", "cider_d", "meteor_exact"]
    coco = task("captioning", metrics=names, official_format="coco_caption")
    found = coco.measure([said("a dog", "a dog"), said("", "a red bus")])
    assert list(found) == names
    assert all(one.unread == [False, True] for one in found.values())
    row = said("a dog", "a dog", name="val2014/COCO_val2014_000000000042.jpg")
    assert coco.to_official(row) == formats.Said("42", "a dog")
    assert task("captioning").official_id(row) == row.id
    assert list(task("reg").measure([row])) == ["cider_d", "meteor_exact", "bleu_4", "rouge_l"]


def test_speech_is_led_by_characters_in_japanese_and_by_words_else() -> None:
    english = [said("hello word", "HELLO, WORLD!"), said("", "ONE")]
    found = task("speech_recognition").measure(english)
    assert list(found) == ["wer", "cer"]
    assert (found["wer"].value, found["wer"].better, found["wer"].unread) == (2 / 3, "lower", [False, True])
    assert list(task("speech_recognition").measure([said("駅", "駅", "ja")])) == ["cer", "wer"]
    assert list(task("speech_recognition", metric="cer").measure(english)) == ["cer", "wer"]
    assert task("speech_recognition", normaliser="none").measure(english)["wer"].value == 1.0


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        ("official", "vqa_accuracy", 1.0),
        ("minigpt4", "vqa_accuracy", 1.0),
        ("lavis", "vqa_accuracy", 1.0),
        ("evalai", "vqa_accuracy", 1.0),
        ("simple", "exact_match", 1.0),
        ("exact", "exact_match", 1.0),
        ("equal", "accuracy", 1.0),
        ("vizwiz", "vizwiz_accuracy", 1.0),
        ("aokvqa", "direct_answer_accuracy", 1.0),
        ("anls", "anls", 1.0),
        ("majority", "majority_accuracy", 1.0),
        ("rouge_l", "rouge_l", 1.0),
        ("auto", "vqa_accuracy", 1.0),
    ],
)
def test_every_variant_of_vqa_accuracy_leads_under_its_name_and_says_what_it_is(
    metric: str, name: str, value: float
) -> None:
    found = task("vqa", metric=metric).measure([said("Dog", ["dog"] * 9 + ["cat"])])
    assert next(iter(found)) == name
    assert found[name].value == pytest.approx(value)
    assert len(found[name].variant) > 10
    assert "exact_match" in found


def test_a_metric_that_falls_back_says_so_and_warns_where_some_questions_have_ten_answers(caplog) -> None:
    mixed = [said("dog", ["dog"] * 10), said("dog", ["dog"] * 9)]
    found = task("vqa").measure(mixed)
    assert list(found) == ["exact_match"]
    assert "metric auto: 1 of 2 questions have the 10 answers" in found["exact_match"].variant
    assert "1 of 2 questions" in caplog.text
    caplog.clear()
    assert "metric auto: 0 of 1" in task("vqa").measure(mixed[1:])["exact_match"].variant and not caplog.text
    assert "auto" not in task("vqa", metric="simple").measure(mixed)["exact_match"].variant


def test_how_choices_were_ranked_is_told_as_it_was() -> None:
    one = task("choice", by="likelihood")
    totals = {"likelihoods": {"a": [-1.0, 1], "b": [-2.0, 2]}, "choices": ["a", "b"]}
    plain, compat = (one.measure([said("a", "a", **totals, **more)]) for more in ({}, {"weighed": "compat"}))
    assert "compat" not in plain["ranked_accuracy"].variant and "mean" in plain["ranked_accuracy"].variant
    assert "over the places of its row" in compat["ranked_accuracy"].variant


def test_the_variants_disagree_where_they_are_known_to() -> None:
    row = said("A dog", ["dog"] * 10)
    each = {m: task("vqa", metric=m).measure([row])["vqa_accuracy"].value for m in ("official", "minigpt4", "evalai")}
    assert each == {"official": 0.0, "minigpt4": 0.0, "evalai": 1.0}
    answers = ["yes", "yes", "no"]
    both = task("audio_qa", metric="majority").measure([said("no", answers), said("Yes.", answers)])
    assert both["majority_accuracy"].each == [0.0, 1.0]
    assert both["exact_match"].each == [1.0, 1.0]


def test_boxes_are_handed_in_as_pixels_and_read_back() -> None:
    box = Box((20.0, 10.0, 100.0, 50.0), (200, 100))
    sample = Sample("a_1#2", [Turn("user", "q"), Turn("assistant", "{<10><10><50><50>}")], boxes=[box])
    refer = task("referring", official_format="refcoco")
    row = refer.prediction(sample, "q", "{<10><10><50><50>}")
    assert refer.to_official(row).box == (20.0, 10.0, 100.0, 50.0)
    alone = formats.Said("a_1#2", "", box=(20.0, 10.0, 100.0, 50.0))
    assert refer.from_official(alone, sample) == "{<10><10><50><50>}"
    assert task("referring", official_format="refcoco_minigpt4").official_id(row) == "a_1"
    assert refer.told_official(alone) == {"given_box": [20.0, 10.0, 100.0, 50.0]}
    assert refer.told_official(formats.Said("a_1#2", "", box=(9.0, 0.0, 3.0, 5.0))) == {}
    assert refer.to_official(refer.prediction(sample, "q", "left")).box is None


@pytest.mark.parametrize("answer", BROKEN)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("choice", {"by": "generation"}),
        ("classification", {"classes": ["dog", "cat"]}),
        ("yes_no", {}),
        ("reg", {}),
        ("speech_recognition", {}),
        ("judged", {}),
        *(("vqa", {"metric": m}) for m in ("evalai", "lavis", "anls", "aokvqa", "majority", "rouge_l")),
    ],
)
def test_no_answer_is_too_broken_to_be_scored(name: str, values: dict[str, Any], answer: str) -> None:
    one = task(name, **values)
    for metric, score in one.score([said(answer, "a star", choices=["a star", "b"])], rounds=10).items():
        assert math.isfinite(score.value), metric
        assert score.value >= 0


def test_a_box_whose_corners_are_the_wrong_way_round_is_wrong_and_ends_nothing() -> None:
    one = task("referring", official_format="refcoco")
    sample = Sample("1", [Turn("user", "q")], boxes=[Box((10.0, 10.0, 20.0, 20.0), (100, 100))])
    assert one.from_official(formats.Said("1", "", box=(20.0, 20.0, 10.0, 10.0)), sample) == ""
    assert one.from_official(formats.Said("1", "", box=(10.0, 10.0, 20.0, 20.0)), sample) == "{<10><10><20><20>}"


# ---- a judge ----


class Endpoint:
    """Words of a judge, in place of a server."""

    def __init__(self, *words: str) -> None:
        self.words, self.seen = list(words), []  # type: ignore[var-annotated]

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.seen.append(messages)
        return self.words.pop(0)


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(task, endpoint) with a cache of its own."""
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "cache"))

    def make(*words: str, **values: object) -> tuple[Any, Endpoint]:
        one = task("judged", url="http://localhost:1/v1", model="judge", **values)
        one.judge = Endpoint(*words)
        return one, one.judge

    return make


def question(name: str = "1") -> Sample:
    meta = {"question": "Where is it?", "caption": ["A hill.", "A bay."], "category": "conv"}
    return Sample(name, [Turn("user", "q"), Turn("assistant", "Hawaii")], answers=["Hawaii"], meta=meta)


def test_our_scores_are_divided_by_the_reference_s_and_the_judge_s_words_are_kept(judged: Any) -> None:
    one, endpoint = judged("8 4\nbecause", "10, 5\n", "no scores here")
    rows = [one.prediction(question(str(i)), "p", answer) for i, answer in enumerate(("Maui", "Oahu", "x", " "))]
    assert [row.meta.get("judge") for row in rows] == ["8 4\nbecause", "10, 5\n", "no scores here", None]
    assert json.loads(json.dumps(rows[0].row()))["meta"]["judge"] == "8 4\nbecause"
    found = one.measure(rows)
    assert found["relative_score"].value == pytest.approx(9 / 38)
    assert found["score"].value == 9 / 4
    assert found["relative_score"].unread == [False, False, True, True]
    assert "own words" in found["relative_score"].variant
    assert "judge" in found["relative_score"].variant
    asked_as = endpoint.seen[0][1]["content"]
    assert asked_as.startswith("[Context]\nA hill.\nA bay.\n\n[Question]\nWhere is it?\n\n[Assistant 1]\nHawaii\n\n")
    assert asked_as.endswith(f"[System]\n{OWN_RULE}\n\n")


def test_no_answer_is_judged_twice(judged: Any) -> None:
    one, endpoint = judged("8 4")
    first = one.prediction(question(), "p", "Maui")
    again, idle = judged()
    assert again.prediction(question(), "p", "Maui") == first
    assert (len(endpoint.seen), len(idle.seen)) == (1, 0)


def test_words_that_come_with_an_answer_are_not_asked_for_again(
    judged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = judged("8 4")
    given = {**question().meta, **one.prediction(question(), "p", "Maui").meta}
    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path / "elsewhere"))  # scored again on another machine
    again, idle = judged("5 5")
    known = Sample("1", question().turns, answers=["Hawaii"], meta=given)
    assert again.prediction(known, "p", "Maui").meta["judge"] == "8 4" and not idle.seen
    assert again.prediction(known, "p", "Oahu").meta["judge"] == "5 5" and len(idle.seen) == 1  # another answer
    other, judge = judged("7 7", temperature=0.0)
    assert other.prediction(known, "p", "Maui").meta["judge"] == "7 7" and len(judge.seen) == 1
    assert "as in the rows" in task("judged").measure([one.prediction(known, "p", "Maui")])["score"].variant


def test_without_a_url_nobody_is_asked_and_only_lengths_are_told() -> None:
    one = task("judged")
    assert one.judge is None
    row = one.prediction(question(), "p", "It is Maui")
    assert "judge" not in row.meta
    assert {name: m.value for name, m in one.measure([row]).items()} == {"answer_words": 3.0}


def test_the_published_rules_may_be_named_and_slips_are_told(judged: Any, tmp_path: Path) -> None:
    rules = tmp_path / "rule.json"
    rules.write_text(json.dumps({"llava_bench_conv": {"role": "Assistant", "prompt": "Rate them."}}))
    one, endpoint = judged("5 5", rule=str(rules))
    found = one.measure([one.prediction(question(), "p", "Maui")])
    assert endpoint.seen[0][1]["content"].endswith("[System]\nRate them.\n\n")
    assert "rule.json" in found["score"].variant
    with pytest.raises(ConfigError, match="no 'llava_bench_math'"):
        one.rule_of("math")
    with pytest.raises(ConfigError, match="is no rule.json"):
        task("judged", rule=str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="name the judge"):
        task("judged", url="http://localhost:1/v1")
    with pytest.raises(ConfigError, match="no address of a chat server"):
        task("judged", url="localhost", model="m")


def test_a_judge_who_is_away_stops_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt4o.common import chat_endpoint

    monkeypatch.setenv("MINIGPT4O_CACHE", str(tmp_path))
    monkeypatch.setattr(chat_endpoint, "TRIES", 1)
    one = task("judged", url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(DataError, match="what is done is kept"):
        one.prediction(question(), "p", "Maui")


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        ("8 7\nwell", (8.0, 7.0)),
        ("8.5, 7", (8.5, 7.0)),
        ("  9 9  ", (9.0, 9.0)),
        ("8", None),
        ("8 7 6", None),
        ("Assistant 1: 8, Assistant 2: 7", None),
        ("", None),
    ],
)
def test_a_verdict_is_two_numbers_alone_on_the_first_line(words: str, pair: tuple[float, float] | None) -> None:
    assert read_pair(words) == pair
    assert relative_of_sums([1.0, 0.0]) == 0.0

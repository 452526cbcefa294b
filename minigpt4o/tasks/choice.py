"""Answers of a known few: multiple choice and classes, by what is generated, by likelihood, or by both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.metrics.choice import accuracy, choice_accuracy, class_accuracy, read_choice, read_class
from minigpt4o.metrics.formats import Said
from minigpt4o.metrics.result import Measured
from minigpt4o.tasks.base import EvaluationTask, Prediction

LIKELIHOODS, GENERATED = "likelihoods", "generated"  # keys of meta: choice -> [log-probability, tokens]; words
_OTHER = {"mean": "sum", "sum": "mean"}
_FIRST = ord("A")
WEIGHED, COMPAT = "weighed", "compat"  # key of meta where choices were ordered as in profile compat, and its value
_HOW = {
    "mean": "the mean log-probability of its tokens, end included",
    "sum": "its whole log-probability, end included",
    COMPAT: "its log-probability over the places of its row, end included (profile compat)",
}


def likeliest(prediction: Prediction, normalise: str) -> str | None:
    """The choice with the largest log-probability, summed or per token; None without any that is a number."""
    found = {}
    for choice, (total, tokens) in prediction.meta.get(LIKELIHOODS, {}).items():
        if total is not None and not math.isnan(total):
            found[choice] = total if normalise == "sum" else total / max(1, tokens)
    return max(found, key=lambda choice: found[choice]) if found else None


def ranked(predictions: Sequence[Prediction], truths: Sequence[str], normalise: str, what: str) -> dict[str, Measured]:
    """Accuracy of the answers that were ranked, and what the other way to weigh lengths makes of the same numbers.

    `truths`: the choice, as it was ranked, that is right. Empty if no prediction has likelihoods.
    """
    if not any(LIKELIHOODS in p.meta for p in predictions):
        return {}
    said = [p.answer if LIKELIHOODS in p.meta else None for p in predictions]
    other = _OTHER[normalise]
    weighed = [likeliest(p, other) for p in predictions]
    how = _HOW[COMPAT if any(p.meta.get(WEIGHED) == COMPAT for p in predictions) else normalise]
    return {
        "ranked_accuracy": replace(accuracy(said, truths), variant=f"{what} of largest likelihood: {how}"),
        f"ranked_accuracy_{other}": replace(
            accuracy(weighed, truths), variant=f"{what} of largest likelihood: {_HOW[other]}"
        ),
    }


def generated(prediction: Prediction) -> str:
    """What the model said where it also ranked, else its answer."""
    return str(prediction.meta.get(GENERATED, prediction.answer))


@registry.register("task", "choice", "multiple_choice")
class Choice(EvaluationTask):
    """Multiple choice: the choices stand in the sample's `meta["choices"]`, the right one is its first answer."""

    @dataclass
    class Config:
        max_new_tokens: int = 16  # longest answer, in tokens
        min_new_tokens: int = 0  # shortest answer, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long answers
        by: Literal["likelihood", "generation", "both"] = (
            "likelihood"  # the likeliest choice is the answer; what is said is read; or both, with a score each
        )
        normalise: Literal["mean", "sum"] = "mean"  # what is compared: log-probability per token, or in all
        rank: Literal["text", "letter"] = (
            "text"  # whose likelihood is taken: the choice's words, or its letter A, B, ...
        )
        official_format: Literal["", "scienceqa", "aokvqa"] = ""  # the form in which answers are handed in besides

    def choices(self, sample: Sample) -> list[str]:
        """What is ranked; nothing where the answer is only generated."""
        given = _choices(sample)
        if self.config.by == "generation":
            return []
        return [chr(_FIRST + i) for i in range(len(given))] if self.config.rank == "letter" else given

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`ranked_accuracy` of answers by likelihood, `choice_accuracy` of generated ones."""
        places = [self._right(p) for p in predictions]
        letters = self.config.rank == "letter"
        words = [
            chr(_FIRST + place) if letters else (p.truth[0] if p.truth else "")
            for place, p in zip(places, predictions, strict=True)
        ]
        found = ranked(predictions, words, self.config.normalise, "the choice's letter" if letters else "choice")
        if self.config.by != "likelihood" or not found:
            found["choice_accuracy"] = choice_accuracy(
                [generated(p) for p in predictions], [_choices(p) for p in predictions], places
            )
        return found

    def chosen(self, prediction: Prediction) -> int | None:
        """Place of the choice that counts as the answer."""
        given = _choices(prediction)
        if LIKELIHOODS in prediction.meta and self.config.rank == "letter":
            return ord(prediction.answer) - _FIRST
        return read_choice(prediction.answer, given)

    def to_official(self, prediction: Prediction) -> Said:
        """A-OKVQA takes the choice's words, ScienceQA its number; what could not be read is "" or -1."""
        place = self.chosen(prediction)
        words = "" if place is None else _choices(prediction)[place]
        answer = str(-1 if place is None else place) if self.official_format == "scienceqa" else words
        choice = words if self.official_format == "aokvqa" else ""
        return Said(self.official_id(prediction), answer, choice=choice)

    def from_official(self, said: Said, sample: Sample) -> str:
        """The choice's words."""
        given = _choices(sample)
        if self.official_format == "scienceqa":
            return given[int(said.answer)] if said.answer.isdecimal() and int(said.answer) < len(given) else ""
        return said.choice or said.answer

    def _right(self, prediction: Prediction) -> int:
        """Place of the right choice; -2 if it is none of them, which no answer reaches."""
        given = _choices(prediction)
        return given.index(prediction.truth[0]) if prediction.truth and prediction.truth[0] in given else -2


def _choices(sample: Sample | Prediction) -> list[str]:
    return [str(choice) for choice in sample.meta.get("choices", [])]


@registry.register("task", "classification")
class Classification(EvaluationTask):
    """One of a data set's classes, told by name: what sound, what digit, what scene this is."""

    @dataclass
    class Config:
        classes: list[str] = field(default_factory=list)  # their names, as they are to be said
        also: dict[str, list[str]] = field(default_factory=dict)  # further names under which a class is accepted
        max_new_tokens: int = 16  # longest answer, in tokens
        min_new_tokens: int = 0  # shortest answer, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long answers
        by: Literal["likelihood", "generation", "both"] = (
            "both"  # the likeliest class is the answer; what is said is read; or both, with a score each
        )
        normalise: Literal["mean", "sum"] = "mean"  # what is compared: log-probability per token, or in all

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        unknown = sorted(set(config.also) - set(config.classes))
        if not config.classes or unknown:
            what = f"also: {', '.join(unknown)} is none of the classes" if unknown else "classes: name them"
            raise ConfigError(f"task.{what}")

    def choices(self, sample: Sample) -> list[str]:
        """All classes; nothing where the answer is only generated."""
        return [] if self.config.by == "generation" else list(self.config.classes)

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`ranked_accuracy` of answers by likelihood, `class_accuracy` of generated ones."""
        config = self.config
        truths = [self._true(p) for p in predictions]
        found = ranked(predictions, truths, config.normalise, f"class, of {len(config.classes)},")
        if config.by != "likelihood" or not found:
            said = [generated(p) for p in predictions]
            found["class_accuracy"] = class_accuracy(said, truths, config.classes, config.also)
        return found

    def _true(self, prediction: Prediction) -> str:
        """The class that the truth names, in our spelling; the truth itself if it names none."""
        truth = prediction.truth[0] if prediction.truth else ""
        return read_class(truth, self.config.classes, self.config.also) or truth

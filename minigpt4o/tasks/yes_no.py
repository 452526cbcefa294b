"""Yes or no: is there such a thing in the picture (POPE), is this meme hateful; by what is said or by likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.metrics.formats import Said
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.yesno import roc_auc, yes_no
from minigpt4o.tasks.base import EvaluationTask, Prediction
from minigpt4o.tasks.choice import LIKELIHOODS, generated


@registry.register("task", "yes_no", "pope")
class YesNo(EvaluationTask):
    """Accuracy, precision, recall, F1 and the share of yes; the area under ROC where likelihoods are known."""

    @dataclass
    class Config:
        max_new_tokens: int = 8  # longest answer, in tokens
        min_new_tokens: int = 0  # shortest answer, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long answers
        by: Literal["generation", "likelihood", "both"] = (
            "generation"  # what is said is read; the likelier of yes and no is the answer; or both, with scores each
        )
        normalise: Literal["mean", "sum"] = "mean"  # what is compared: log-probability per token, or in all
        reading: Literal["first", "pope", "equal"] = (
            "first"  # first: the first yes or no counts; pope: as its script, what does not say no is a yes; equal
        )
        yes: str = "yes"  # the word for yes, as it is to be said
        no: str = "no"  # the word for no
        official_format: Literal["", "pope"] = ""  # the form in which answers are handed in besides

    def choices(self, sample: Sample) -> list[str]:
        """Yes and no; nothing where the answer is only generated."""
        return [] if self.config.by == "generation" else [self.config.yes, self.config.no]

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """POPE's five figures of what was generated, the same as `ranked_*` of what is likelier, and `auroc`."""
        labels = [self._word(p.truth[0]) if p.truth else "" for p in predictions]
        known = any(LIKELIHOODS in p.meta for p in predictions)
        found: dict[str, Measured] = {}
        if self.config.by != "likelihood" or not known:
            said = [self._word(generated(p)) if p.answered else None for p in predictions]
            found |= yes_no(said, labels, self.config.reading)
        if known:
            said = [self._word(p.answer) if LIKELIHOODS in p.meta else None for p in predictions]
            likelier = yes_no(said, labels, "equal")
            how = f"{self.config.yes!r} or {self.config.no!r}, whichever is likelier ({self.config.normalise})"
            for name, one in likelier.items():
                found[f"ranked_{name}"] = replace(one, variant=f"{one.variant.partition(';')[0]}; answer: {how}")
            found["auroc"] = roc_auc(list(map(self._lead, predictions, labels)), labels)
        return found

    def to_official(self, prediction: Prediction) -> Said:
        """What was said, as it was said: POPE's script reads it."""
        said = generated(prediction).replace("\n", " ").strip()
        return Said(self.official_id(prediction), said, str(prediction.meta.get("question", "")))

    def _word(self, text: str) -> str:
        """The text, or yes or no in English where it is just our word for it."""
        plain = text.strip()
        words = {self.config.yes.lower(): "yes", self.config.no.lower(): "no"}
        return words.get(plain.lower(), plain)

    def _lead(self, prediction: Prediction, label: str) -> float:
        """How much likelier yes is than no; without likelihoods, as wrong for its label as can be."""
        given = prediction.meta.get(LIKELIHOODS)
        if given is None:
            return -math.inf if label == "yes" else math.inf
        yes, no = (_value(given.get(word), self.config.normalise) for word in (self.config.yes, self.config.no))
        return yes - no


def _value(found: Sequence[float] | None, normalise: str) -> float:
    if found is None or found[0] is None:
        return math.nan
    total, tokens = found
    return total if normalise == "sum" else total / max(1, tokens)

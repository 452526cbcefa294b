"""Short answers to questions about pictures or sounds: VQA accuracy in its named variants, or plain matching."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.metrics.caption import rouge_l
from minigpt4o.metrics.choice import accuracy, read_choice
from minigpt4o.metrics.formats import Said
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.text import caption_words
from minigpt4o.metrics.vqa import anls, aokvqa, equal, evalai, lavis, minigpt4, official, simple, simple_form, vizwiz
from minigpt4o.tasks.base import EvaluationTask, Prediction

log = logging.getLogger(__name__)

OFFICIAL_ANSWERS = 10  # annotators per question in VQA, OK-VQA and VizWiz

Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], Measured]


def majority(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> Measured:
    """Share of answers that equal what most people said; among equals the first counts (yes, yes, no: yes)."""
    most = [[Counter(map(simple_form, t)).most_common(1)[0][0]] if t else [] for t in truths]
    variant = "exact match with the answer most people gave (case, articles, outer punctuation ignored)"
    return replace(simple(answers, most), variant=variant)


# metric -> (name of the score, its function, whether `lower` and <unk> are dealt with before)
_METRICS: dict[str, tuple[str, Metric, bool]] = {
    "official": ("vqa_accuracy", official, True),
    "minigpt4": ("vqa_accuracy", minigpt4, False),
    "lavis": ("vqa_accuracy", lavis, False),
    "evalai": ("vqa_accuracy", evalai, False),
    "simple": ("exact_match", simple, True),
    "exact": ("exact_match", simple, True),
    "equal": ("accuracy", equal, False),
    "vizwiz": ("vizwiz_accuracy", vizwiz, False),
    "aokvqa": ("direct_answer_accuracy", aokvqa, True),
    "anls": ("anls", anls, False),
    "majority": ("majority_accuracy", majority, True),
}


@registry.register("task", "vqa", "audio_qa")
class VQA(EvaluationTask):
    """Questions with one or several accepted answers."""

    @dataclass
    class Config:
        max_new_tokens: int = 16  # longest answer, in tokens
        min_new_tokens: int = 0  # shortest answer, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long answers
        metric: Literal[
            "auto",
            "official",
            "minigpt4",
            "lavis",
            "evalai",
            "simple",
            "exact",
            "equal",
            "vizwiz",
            "aokvqa",
            "anls",
            "majority",
            "rouge_l",
            "choice",
        ] = "auto"  # auto: official where all have ten answers, else simple; docs/metrics.md tells what each counts
        lower: bool = True  # lower the answer's case first, as MiniGPT-4's evaluation does
        official_format: str = ""  # vqa, gqa, vizwiz, aokvqa: the form in which answers are handed in besides

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """The metric that is asked for (`vqa_accuracy` where there are ten answers), and always `exact_match`."""
        truths = [p.truth for p in predictions]
        answers = [self.read(p.answer) for p in predictions]
        chosen, why = self.config.metric, ""
        if chosen == "auto":
            ten = sum(len(truth) == OFFICIAL_ANSWERS for truth in truths)
            chosen = "official" if truths and ten == len(truths) else "simple"
            if chosen == "simple":
                why = f"; metric auto: {ten} of {len(truths)} questions have the {OFFICIAL_ANSWERS} answers of official"
                if ten:
                    log.warning("%s: exact match is measured%s; name task.metric", predictions[0].dataset, why)
        found: dict[str, Measured] = {}
        if chosen == "choice":
            found["choice_accuracy"] = self._choices(predictions, truths)
        elif chosen == "rouge_l":
            found["rouge_l"] = _rouge(answers, truths, [p.language for p in predictions])
        else:
            name, metric, cleaned = _METRICS[chosen]
            measured = metric(answers if cleaned else [p.answer.strip() for p in predictions], truths)
            how = "; the answer in lower case, without <unk>" if cleaned and self.config.lower else ""
            found[name] = replace(measured, variant=measured.variant + how + why)
        found.setdefault("exact_match", simple(answers, truths))
        return found

    def read(self, answer: str) -> str:
        """The answer as it is compared."""
        text = answer.replace("<unk>", "").strip()
        return text.lower() if self.config.lower else text

    def to_official(self, prediction: Prediction) -> Said:
        """The answer as it is compared, so that a server reads what we read."""
        return replace(super().to_official(prediction), answer=self.read(prediction.answer))

    def _choices(self, predictions: Sequence[Prediction], truths: Sequence[Sequence[str]]) -> Measured:
        """Share of answers that name the right one of the sample's choices."""
        named = []
        for prediction in predictions:
            choices = [str(choice) for choice in prediction.meta.get("choices", [])]
            index = read_choice(self.read(prediction.answer), choices)
            named.append(choices[index] if index is not None else None)
        measured = accuracy(named, [truth[0] if truth else "" for truth in truths])
        variant = "generated answer read as one of the choices (MiniGPT-v2 ranks them by loss), unreadable = wrong"
        return replace(measured, variant=variant, unread=[word is None for word in named])


def _rouge(answers: Sequence[str], truths: Sequence[Sequence[str]], languages: Sequence[str]) -> Measured:
    """ROUGE-L of answers, for languages whose words have no borders."""
    candidates, references, cut = caption_words(answers, truths, languages)
    measured = rouge_l(candidates, references)
    return replace(measured, variant=f"{measured.variant}; tokens: {cut}", unread=[not a.strip() for a in answers])

"""Short answers to questions about pictures or sounds: the official VQA accuracy, or plain matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.metrics.choice import accuracy, read_choice
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.vqa import equal, official, simple, vizwiz
from minigpt4o.tasks.base import EvaluationTask, Prediction

OFFICIAL_ANSWERS = 10  # annotators per question in VQA, OK-VQA and VizWiz


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
        metric: Literal["auto", "official", "exact", "equal", "vizwiz", "choice"] = (
            "auto"  # auto: official where all have ten answers; equal, vizwiz: as MiniGPT-v2; choice: one of several
        )
        lower: bool = True  # lower the answer's case first, as MiniGPT-4's evaluation does

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """The metric that is asked for (`vqa_accuracy` where there are ten answers), and always `exact_match`."""
        truths = [p.truth for p in predictions]
        answers = [self.read(p.answer) for p in predictions]
        ten = bool(truths) and all(len(truth) == OFFICIAL_ANSWERS for truth in truths)
        found: dict[str, Measured] = {}
        if self.config.metric == "official" or (self.config.metric == "auto" and ten):
            found["vqa_accuracy"] = official(answers, truths)
        elif self.config.metric == "equal":
            found["accuracy"] = equal([p.answer.strip() for p in predictions], truths)
        elif self.config.metric == "vizwiz":
            found["vizwiz_accuracy"] = vizwiz([p.answer.strip() for p in predictions], truths)
        elif self.config.metric == "choice":
            found["choice_accuracy"] = self._choices(predictions, truths)
        found["exact_match"] = simple(answers, truths)
        return found

    def read(self, answer: str) -> str:
        """The answer as it is compared."""
        text = answer.replace("<unk>", "").strip()
        return text.lower() if self.config.lower else text

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

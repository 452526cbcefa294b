"""Short answers to questions about pictures or sounds: the official VQA accuracy, or plain matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.vqa import official, simple
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
        metric: Literal["auto", "official", "exact"] = "auto"  # auto: official where every question has ten answers
        lower: bool = True  # lower the answer's case first, as MiniGPT-4's evaluation does

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`vqa_accuracy` (ten answers) and always `exact_match`."""
        truths = [p.truth for p in predictions]
        answers = [self.read(p.answer) for p in predictions]
        ten = bool(truths) and all(len(truth) == OFFICIAL_ANSWERS for truth in truths)
        found: dict[str, Measured] = {}
        if self.config.metric == "official" or (self.config.metric == "auto" and ten):
            found["vqa_accuracy"] = official(answers, truths)
        found["exact_match"] = simple(answers, truths)
        return found

    def read(self, answer: str) -> str:
        """The answer as it is compared."""
        text = answer.replace("<unk>", "").strip()
        return text.lower() if self.config.lower else text

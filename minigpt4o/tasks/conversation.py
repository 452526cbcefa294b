"""Keep up a conversation: every assistant turn is generated after the true history and compared with the true one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigpt4o.common.registry import registry
from minigpt4o.conversation.marks import count_marks
from minigpt4o.conversation.objects import cut_boxes, written
from minigpt4o.conversation.sample import MARKS, Sample
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.text import words
from minigpt4o.metrics.vqa import simple, token_f1
from minigpt4o.tasks.base import EvaluationTask, Prediction


@registry.register("task", "conversation")
class Conversation(EvaluationTask):
    """Conversations of several rounds: exact match and token F1 per assistant turn."""

    @dataclass
    class Config:
        max_new_tokens: int = 48  # longest turn, in tokens
        min_new_tokens: int = 0  # shortest turn, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long turns

    def items(self, sample: Sample) -> list[Sample]:
        """One prompt per assistant turn, with the media that were shown up to there."""
        found: list[Sample] = []
        said = written(sample).turns
        for place, turn in enumerate(sample.turns):
            if turn.role != "assistant":
                continue
            turns = sample.turns[: place + 1]
            images = sum(count_marks(t.text, MARKS["image"]) for t in turns if t.role == "user")
            audios = sum(count_marks(t.text, MARKS["audio"]) for t in turns if t.role == "user")
            number = len(found) + 1
            item = replace(
                sample,
                id=f"{sample.id}#{number}",
                turns=turns,
                images=sample.images[:images],
                audios=sample.audios[:audios],
                answers=[said[place].text],
                boxes=cut_boxes(sample, turns),
                meta={"question_type": f"turn {number}", **sample.meta, "turn": number},
            )
            found.append(item)
        return found

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`exact_match` and `token_f1`."""
        cut = [words(p.answer, p.language) for p in predictions]
        truths = [[words(text, p.language) for text in p.truth] for p in predictions]
        return {
            "exact_match": simple([p.answer for p in predictions], [p.truth for p in predictions]),
            "token_f1": token_f1(cut, truths),
        }

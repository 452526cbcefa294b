"""Say where something is: the first box of the answer against the true one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from minigpt4o.common.registry import registry
from minigpt4o.conversation.boxes import BoxError, parse_boxes, to_pixels
from minigpt4o.conversation.sample import Sample
from minigpt4o.metrics.boxes import accuracy_at, mean_iou, overlaps
from minigpt4o.metrics.result import Measured
from minigpt4o.tasks.base import EvaluationTask, Prediction

XYXY = tuple[float, float, float, float]
_START = re.compile(r"\{<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}")


@registry.register("task", "referring")
class Referring(EvaluationTask):
    """Referring expressions: acc@0.5, mean overlap, and how many answers held no readable box."""

    @dataclass
    class Config:
        max_new_tokens: int = 32  # longest answer, in tokens
        min_new_tokens: int = 0  # shortest answer, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search
        threshold: float = 0.5  # overlap above which a box counts as found
        plus_one: bool = True  # count the last pixel in, as MiniGPT-4's evaluation does
        profile: Literal["default", "compat"] = "default"  # compat: read the box only at the answer's start, as there

    def truth(self, sample: Sample) -> list[str]:
        """The box as text, for the record; scoring uses the boxes in pixels."""
        last = sample.turns[-1] if sample.turns else None
        return [last.text] if last is not None and last.role == "assistant" else list(sample.answers)

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """Every expression counts; an answer without a readable box has overlap 0."""
        found = [self.read(p) for p in predictions]
        true = [[box.xyxy for box in p.boxes] for p in predictions]
        ious = overlaps(found, true, self.config.plus_one)
        unread = [box is None for box in found]
        name = f"acc@{self.config.threshold:g}"
        both = {
            name: accuracy_at(ious, self.config.threshold, self.config.plus_one),
            "mean_iou": mean_iou(ious, self.config.plus_one),
        }
        how = ", box read at the answer's start only (MiniGPT-v2)" if self.config.profile == "compat" else ""
        return {key: replace(one, unread=unread, variant=one.variant + how) for key, one in both.items()}

    def read(self, prediction: Prediction) -> XYXY | None:
        """The first box of the answer in pixels, or None if the answer holds no readable one."""
        if not prediction.boxes:
            return None
        if self.config.profile == "compat":
            return _at_the_start(prediction.answer, prediction.boxes[0].image_size)
        try:
            first = parse_boxes(prediction.answer)[0]
        except BoxError:
            return None
        return to_pixels(first, prediction.boxes[0].image_size).xyxy


def _at_the_start(answer: str, image_size: tuple[int, int]) -> XYXY | None:
    """The reference's reading: blanks and <unk> taken out, then a box at once; 0 to 999 and inverted ones accepted."""
    found = _START.match(answer.replace("<unk>", "").replace(" ", "").strip())
    if found is None:
        return None
    width, height = image_size
    x1, y1, x2, y2 = (int(number) / 100 for number in found.groups())
    return x1 * width, y1 * height, x2 * width, y2 * height

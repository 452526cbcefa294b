"""Say where something is: the first box of the answer against the true one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from minigpt4o.common.registry import registry
from minigpt4o.conversation.boxes import BoxError, box_text, parse_boxes, to_pixels
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import Box, Sample
from minigpt4o.metrics.boxes import XYXY, box_in_pixels, box_metrics
from minigpt4o.metrics.formats import Said
from minigpt4o.metrics.result import Measured
from minigpt4o.tasks.base import EvaluationTask, Prediction

GIVEN_BOX = "given_box"  # key of meta: x1, y1, x2, y2 in pixels, from a file that was handed in
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
        official_format: Literal["", "refcoco", "refcoco_minigpt4"] = (
            ""  # the form in which answers are handed in besides: boxes in pixels, or MiniGPT-4's {img_id: [answer]}
        )

    def truth(self, sample: Sample) -> list[str]:
        """The box as text, for the record; scoring uses the boxes in pixels."""
        last = written(sample).turns[-1] if sample.turns else None
        return [last.text] if last is not None and last.role == "assistant" else list(sample.answers)

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """Every expression counts; an answer without a readable box has overlap 0."""
        found = [self.read(p) for p in predictions]
        true = [[box.xyxy for box in p.boxes] for p in predictions]
        both = box_metrics(found, true, self.config.plus_one, [self.config.threshold])
        how = ", box read at the answer's start only (MiniGPT-v2)" if self.config.profile == "compat" else ""
        return {key: replace(one, variant=one.variant + how) for key, one in both.items()}

    def official_id(self, sample: Sample | Prediction) -> str:
        """MiniGPT-4's files call all sentences about one picture by its id."""
        known = super().official_id(sample)
        return known.partition("#")[0] if self.official_format == "refcoco_minigpt4" else known

    def to_official(self, prediction: Prediction) -> Said:
        """The answer, and the box that was read from it in pixels."""
        return replace(super().to_official(prediction), box=self.read(prediction))

    def from_official(self, said: Said, sample: Sample) -> str:
        """The answer as it was given; of a file with boxes alone, the box in words, rounded to whole hundredths."""
        if said.answer or said.box is None or not sample.boxes:
            return said.answer
        try:
            return box_text(Box(said.box, sample.boxes[0].image_size))
        except BoxError:  # its corners are the wrong way round
            return ""

    def told_official(self, said: Said) -> dict[str, Any]:
        """The box in pixels, which is scored as it was given and not as words would round it."""
        if said.box is None or said.box[0] > said.box[2] or said.box[1] > said.box[3]:
            return {}
        return {GIVEN_BOX: list(said.box)}

    def read(self, prediction: Prediction) -> XYXY | None:
        """The first box of the answer in pixels, or None if the answer holds no readable one.

        Of an answer that was handed in with a box in pixels it is that box.
        """
        if not prediction.boxes:
            return None
        if given := prediction.meta.get(GIVEN_BOX):
            x1, y1, x2, y2 = map(float, given)
            return x1, y1, x2, y2
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
    return box_in_pixels([int(number) for number in found.groups()], image_size)

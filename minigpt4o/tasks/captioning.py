"""Describe a picture, a sound or what is in a box: CIDEr-D and its kin, and which true attributes were said."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Sample
from minigpt4o.metrics.attributes import attribute_accuracy
from minigpt4o.metrics.caption import bleu, cider, cider_d, rouge_l
from minigpt4o.metrics.chrf import chrf
from minigpt4o.metrics.meteor import meteor_exact
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.text import caption_words
from minigpt4o.tasks.base import EvaluationTask, Prediction

OF_WORDS: dict[str, Callable[..., Measured]] = {
    "cider_d": cider_d,
    "cider": cider,
    "bleu_1": partial(bleu, order=1),
    "bleu_2": partial(bleu, order=2),
    "bleu_3": partial(bleu, order=3),
    "bleu_4": bleu,
    "rouge_l": rouge_l,
    "meteor_exact": meteor_exact,
}
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
_IMAGE_IDS = ("coco_caption", "nocaps")  # official forms that call a sample by the number of its picture


@registry.register("task", "captioning")
class Captioning(EvaluationTask):
    """Captions of pictures, against any number of true captions and, where rows carry them, true attributes."""

    @dataclass
    class Config:
        max_new_tokens: int = 48  # longest caption, in tokens
        min_new_tokens: int = 0  # shortest caption, in tokens
        num_beams: int = 1  # beams of the search; 1 is greedy
        repetition_penalty: float = 1.0  # above 1 discourages tokens that were said already
        length_penalty: float = 1.0  # of the beam search; above 1 favours long captions
        words_per_object: int = (
            4  # attributes per object in a flat list (toy world: size, colour, shape, place); 0 = one object
        )
        metrics: list[
            Literal["cider_d", "cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor_exact", "chrf"]
        ] = field(
            default_factory=lambda: ["cider_d", "bleu_4", "rouge_l"]
        )  # what is measured, the most important first; SPICE and so SPIDEr need a Java program and are not here
        official_format: str = ""  # coco_caption, nocaps: the form in which captions are handed in besides

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`attributes` and `objects` only if every row has `meta["attributes"]`."""
        found: dict[str, Measured] = {}
        answers = [p.answer for p in predictions]
        objects = [self.objects(p.meta.get("attributes")) for p in predictions]
        if predictions and all(objects):
            languages = [p.language for p in predictions]
            found["attributes"], found["objects"] = attribute_accuracy(answers, objects, languages)
        truths = [p.truth for p in predictions]
        candidates, references, cut = caption_words(answers, truths, [p.language for p in predictions])
        unread = [not answer.strip() for answer in answers]
        for name in self.config.metrics:
            if name == "chrf":
                found[name] = replace(chrf(answers, truths), unread=unread)
                continue
            measured = OF_WORDS[name](candidates, references)
            found[name] = replace(measured, variant=f"{measured.variant}; tokens: {cut}", unread=unread)
        return found

    def official_id(self, sample: Sample | Prediction) -> str:
        """The number of the picture, the last in our id: val2014/COCO_val2014_000000000042.jpg is 42."""
        known = super().official_id(sample)
        number = _LAST_NUMBER.search(known) if self.official_format in _IMAGE_IDS else None
        return str(int(number[1])) if number else known

    def objects(self, attributes: Any) -> list[list[str]]:
        """Attribute words per object, from nested lists, a flat list, or "a|b|c"."""
        if not attributes:
            return []
        if isinstance(attributes, str):
            attributes = attributes.split("|")
        if all(isinstance(one, list | tuple) for one in attributes):
            return [[str(word) for word in one] for one in attributes]
        flat = [str(word) for word in attributes]
        size = self.config.words_per_object
        if not size or len(flat) % size:
            return [flat]
        return [flat[i : i + size] for i in range(0, len(flat), size)]


@registry.register("task", "audio_captioning")
class AudioCaptioning(Captioning):
    """Captions of sounds; the attributes of a row belong to one sound."""

    @dataclass
    class Config(Captioning.Config):
        words_per_object: int = 0  # how a flat list of attributes falls into sounds; 0 = one sound


@registry.register("task", "reg", "referring_generation")
class ReferringGeneration(Captioning):
    """Say what is in a box so that others find it, against all expressions that people gave for it (REG)."""

    @dataclass
    class Config(Captioning.Config):
        max_new_tokens: int = 24  # longest expression, in tokens
        metrics: list[
            Literal["cider_d", "cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor_exact", "chrf"]
        ] = field(
            default_factory=lambda: ["cider_d", "meteor_exact", "bleu_4", "rouge_l"]
        )  # what is measured, the most important first

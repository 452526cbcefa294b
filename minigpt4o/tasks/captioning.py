"""Describe a picture or a sound: CIDEr-D, BLEU-4, ROUGE-L, and how many of the true attributes were said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigpt4o.common.registry import registry
from minigpt4o.metrics.attributes import attribute_accuracy
from minigpt4o.metrics.caption import bleu, cider_d, rouge_l
from minigpt4o.metrics.result import Measured
from minigpt4o.metrics.text import tokenizer_name, words
from minigpt4o.tasks.base import EvaluationTask, Prediction


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

    def measure(self, predictions: Sequence[Prediction]) -> dict[str, Measured]:
        """`attributes` and `objects` only if every row has `meta["attributes"]`."""
        found: dict[str, Measured] = {}
        objects = [self.objects(p.meta.get("attributes")) for p in predictions]
        if predictions and all(objects):
            languages = [p.language for p in predictions]
            answers = [p.answer for p in predictions]
            found["attributes"], found["objects"] = attribute_accuracy(answers, objects, languages)
        candidates = [words(p.answer, p.language) for p in predictions]
        references = [[words(text, p.language) for text in p.truth] for p in predictions]
        cut = "+".join(sorted({tokenizer_name(p.language) for p in predictions}))
        measures = {"cider_d": cider_d, "bleu_4": bleu, "rouge_l": rouge_l}
        for name, measure in measures.items():
            measured = measure(candidates, references)
            found[name] = replace(measured, variant=f"{measured.variant}; tokens: {cut}")
        return found

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

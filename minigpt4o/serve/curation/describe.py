"""Let a trained model describe pictures at length; an answer that is too short is asked to go on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.batch import Decoding, Example
from minigpt4o.conversation.sample import IMAGE_MARK, Sample, Turn
from minigpt4o.datasets.collate import collate
from minigpt4o.serve.curation.rules import size_of, unfinished


@dataclass(frozen=True)
class Asking:
    """What is asked and how."""

    prompt: str = "Describe this picture in as much detail as you can, and mention everything that you see."
    go_on: str = "Continue."
    short: int = 80  # below so many words (Japanese: characters) the model is asked to go on
    times: int = 2  # how often at most
    max_new_tokens: int = 300
    do_sample: bool = False
    top_p: float = 0.9
    temperature: float = 1.0
    repetition_penalty: float = 1.05
    seed: int = 0

    @property
    def decoding(self) -> Decoding:
        return Decoding(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.do_sample,
            top_p=self.top_p,
            temperature=self.temperature,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )


class Describer:
    """A model with the encoder of one data set."""

    def __init__(self, model: Any, encoder: Any, asking: Asking) -> None:
        self.model, self.encoder, self.asking = model, encoder, asking

    def describe(self, samples: Sequence[Sample]) -> list[str | SkipSample]:
        """A raw description of each sample's first picture, or why there is none."""
        texts: list[str | SkipSample] = list(self._ask(samples, [[] for _ in samples]))
        for _ in range(self.asking.times):
            short = [i for i, text in enumerate(texts) if isinstance(text, str) and self._wants_more(text)]
            if not short:
                break
            said = [[str(texts[i])] for i in short]
            for i, more in zip(short, self._ask([samples[i] for i in short], said), strict=True):
                if isinstance(more, str) and more:
                    texts[i] = f"{texts[i]} {more}".strip()
        return texts

    def _wants_more(self, text: str) -> bool:
        return bool(text) and (size_of(text) < self.asking.short or unfinished(text))

    def _ask(self, samples: Sequence[Sample], said: Sequence[Sequence[str]]) -> list[str | SkipSample]:
        """One answer each, after what was said already."""
        found: list[str | SkipSample] = ["" for _ in samples]
        examples: dict[int, Example] = {}
        for place, (sample, answers) in enumerate(zip(samples, said, strict=True)):
            turns = [Turn("user", IMAGE_MARK + self.asking.prompt)]
            for answer in answers:
                turns += [Turn("assistant", answer), Turn("user", self.asking.go_on)]
            try:
                asked = replace(sample, turns=turns, images=sample.images[:1], audios=[], boxes=[])
                examples[place] = self.encoder.prompt(asked, random.Random(0))
            except SkipSample as skip:
                found[place] = skip
        if examples:
            batch = collate(list(examples.values()), self.model.tokenizer.pad_token_id or 0, side="left")
            template = self.encoder.template.serving
            answers = self.model.generate(batch.to(self.model.device), self.asking.decoding, stop=template.stop)
            for place, answer in zip(examples, answers, strict=True):
                found[place] = ANSWER_RULES[template.answer](answer)
        return found

"""What the engine reads of a request: ids, media, and for every place a number that says what stands there."""

# T places of the row

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from minigpt4o.conversation.batch import SLOTS
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.objects import Geometry
from minigpt4o.conversation.sample import Media, Sample
from minigpt4o.serve.engine_media import MediaCache, Medium


@dataclass
class Prompt:
    """One rendered conversation that waits for its answer."""

    sample: Sample
    ids: list[int]  # T; a slot where a feature stands
    identities: list[int]  # T; equal numbers stand for equal embeddings
    media: dict[str, list[Medium]]  # kind -> in row order
    frame: Geometry | None = None  # of the picture that the answer's boxes lie in; None: it is shown whole
    lost: list[float] = field(default_factory=list)  # of each sound: seconds that the model does not hear

    @property
    def media_tokens(self) -> int:
        return sum(i < 0 for i in self.ids)


class _Found:
    """A processor that hands out what was opened before."""

    def __init__(self, found: Mapping[int, Medium]) -> None:
        self.found = found

    def __call__(self, media: Media, rng: random.Random) -> torch.Tensor:
        assert id(media) in self.found, "a medium of the sample was replaced while its prompt was made"
        return torch.empty(0)


class _FoundWithFrame(_Found):
    """The same for processors that may change the frame of a picture."""

    def open(self, media: Media, rng: random.Random, boxes: Sequence[Any] = ()) -> tuple[torch.Tensor, Any]:
        """Nothing to see, and the frame of what was opened."""
        return self(media, rng), self.found[id(media)].geometry


class PromptMaker:
    """Samples -> prompts, in the thread of whoever asks. Media are opened side by side, texts are cut one by one."""

    def __init__(self, encoder: SampleEncoder, cache: MediaCache) -> None:
        self.encoder = copy.copy(encoder)
        self.positions, self.encoder.positions = encoder.positions, 0  # the engine says itself what is too long
        self.cache = cache
        self.lock = threading.Lock()  # tokenizers are not made for many threads

    def make(self, sample: Sample) -> Prompt:
        """Raises SkipSample if the text or a medium cannot be used."""
        found = {
            kind: [self._open(kind, medium) for medium in media]
            for kind, media in (("image", sample.images), ("audio", sample.audios))
            if kind in self.encoder.processors
        }
        by_media = {
            id(media): medium
            for kind, mediums in found.items()
            for media, medium in zip(sample.images if kind == "image" else sample.audios, mediums, strict=True)
        }
        encoder = copy.copy(self.encoder)
        encoder.processors = {kind: _handing_out(p, by_media) for kind, p in self.encoder.processors.items()}
        with self.lock:
            example = encoder.prompt(sample, random.Random(0))
        ids = example.input_ids.tolist()
        lost = [medium.lost for medium in found.get("audio", [])]
        return Prompt(example.sample, ids, self._identities(ids, found), found, example.frame, lost)

    def _open(self, kind: str, media: Media) -> Medium:
        return self.cache.open(kind, media, self.encoder.processors[kind])

    def _identities(self, ids: Sequence[int], media: Mapping[str, Sequence[Medium]]) -> list[int]:
        kinds = {slot: kind for kind, slot in SLOTS.items()}
        seen = dict.fromkeys(SLOTS, 0)
        identities = []
        for token in ids:
            if token < 0:
                kind = kinds[token]
                number, place = divmod(seen[kind], self.encoder.slots[kind])
                seen[kind] += 1
                token = media[kind][number].identity(place)
            identities.append(token)
        return identities


def _handing_out(processor: Callable[..., Any], found: Mapping[int, Medium]) -> _Found:
    return _FoundWithFrame(found) if hasattr(processor, "open") else _Found(found)

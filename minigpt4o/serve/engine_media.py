"""Pictures and sounds by their content: opened once and encoded once, whoever sends them and however often."""

# N pictures or sounds, P features of one, D width of the language model

from __future__ import annotations

import hashlib
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Media

TOGETHER = 16  # pictures or sounds that are encoded in one go
_PLACES = 20  # bits for the place inside a medium: more than a million features


@dataclass(eq=False)
class Medium:
    """One picture or sound on its way into the model."""

    kind: str
    digest: str  # of its bytes
    geometry: Any = None  # how a processor changed the frame of a picture
    lost: float = 0.0  # seconds of a sound that the model does not hear, because it is too long
    opened: Tensor | None = None  # what the encoder sees, until it has seen it
    features: Tensor | None = None  # (P, D)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def identity(self, place: int) -> int:
        """A number below those of slots for one of its places in a row: the same medium gives the same numbers."""
        return -((int(self.digest[:30], 16) << _PLACES) + place + 10)

    @property
    def size(self) -> int:
        """Bytes of what is held."""
        return sum(t.numel() * t.element_size() for t in (self.opened, self.features) if t is not None)


class MediaCache:
    """The media met last, as many as fit into `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.hits = self.misses = 0
        self._held: OrderedDict[str, tuple[Medium, int]] = OrderedDict()  # key -> medium, its bytes when counted
        self._bytes = 0
        self._lock = threading.Lock()
        self._noting = threading.Lock()

    def open(self, kind: str, media: Media, processor: Callable[..., Any]) -> Medium:
        """The medium as the processor opens it, now or earlier. Raises SkipSample."""
        try:
            data = media.read()
        except OSError as error:
            raise SkipSample("read_error", f"{media}: {error.strerror}") from error
        key = f"{kind}:{hashlib.sha256(data).hexdigest()}"
        with self._lock:
            found, counted = self._held.pop(key, (None, 0))
            self.hits += found is not None
            self.misses += found is None
            medium = found or Medium(kind, key.partition(":")[2])
            self._held[key] = (medium, counted)
        with medium.lock:
            if medium.opened is None and medium.features is None:
                try:
                    self._open(medium, Media(data=data, name=str(media)), processor)
                except BaseException:
                    self._drop(key)
                    raise
                self._count(key, medium)
        return medium

    def encoded(self, medium: Medium, features: Tensor) -> None:
        """Note the features (P, D) of a medium; what the encoder saw is let go."""
        with medium.lock:
            medium.features, medium.opened = features, None
            key = f"{medium.kind}:{medium.digest}"
            with self._lock:  # it may have had to go while it was larger
                self._held.setdefault(key, (medium, 0))
            self._count(key, medium)

    def clear(self) -> None:
        """Let go of everything that no request is using."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _open(self, medium: Medium, media: Media, processor: Callable[..., Any]) -> None:
        """Let the processor open it, as for any prompt: nothing is drawn that another request would draw otherwise."""
        look, rng = getattr(processor, "open", None), random.Random(0)
        if look is not None:
            medium.opened, medium.geometry = look(media, rng, [])
        elif not hasattr(processor, "facts"):
            medium.opened = processor(media, rng)
        else:
            with self._noting:  # what it notes, it notes about the last it opened
                processor.facts.clear()
                medium.opened = processor(media, rng)
                medium.lost = processor.facts.get("audio_cut_seconds", 0.0)

    def _drop(self, key: str) -> None:
        with self._lock:
            _, counted = self._held.pop(key, (None, 0))
            self._bytes -= counted

    def _count(self, key: str, medium: Medium) -> None:
        """Count what a medium holds now, and let the oldest go if it is too much."""
        with self._lock:
            if key not in self._held:
                return
            _, counted = self._held[key]
            self._held[key] = (medium, medium.size)
            self._bytes += medium.size - counted
            while self._bytes > self.budget and self._held:
                _, (_, size) = self._held.popitem(last=False)
                self._bytes -= size


def encode(model: Any, media: Iterable[Medium], cache: MediaCache) -> None:
    """Features for all of these that have none yet, those of one kind together."""
    alike: dict[Any, list[tuple[Medium, Tensor]]] = {}
    for medium in dict.fromkeys(media):
        if medium.features is None and medium.opened is not None:
            alike.setdefault((medium.kind, medium.opened.shape), []).append((medium, medium.opened))
    for (kind, _), found in alike.items():
        for start in range(0, len(found), TOGETHER):
            some = found[start : start + TOGETHER]
            seen = torch.stack([opened for _, opened in some]).to(model.device)
            for (medium, _), features in zip(some, model.soft_tokens(kind, seen), strict=True):
                cache.encoded(medium, features.clone())  # its own memory, not a part of the batch's

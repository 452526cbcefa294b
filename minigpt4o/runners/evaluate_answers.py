"""Ask the model: prompts in batches of like length, answers written down as they come, nothing asked twice."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.batch import Decoding, Example
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.sample import MARKS, Media, Sample
from minigpt4o.datasets.collate import collate
from minigpt4o.runners.evaluate_items import Item, one_key
from minigpt4o.runners.evaluate_journal import Journal, Row

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 15.0


class MediaCache:
    """Opened pictures and sounds by where they lie: a picture is opened once for all its questions and conditions."""

    def __init__(self, budget: int = 256 << 20, workers: int = 0) -> None:
        self.budget = budget  # bytes of tensors kept
        self._held: OrderedDict[tuple, Future[torch.Tensor]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(workers) if workers > 0 else None

    def wrap(self, encoder: SampleEncoder, owner: str) -> None:
        """Let an encoder's processors look here first. `owner` tells apart processors with different settings."""
        encoder.processors = {
            kind: self._remembering(processor, f"{owner}/{kind}") for kind, processor in encoder.processors.items()
        }

    def _remembering(self, processor: Callable, owner: str) -> Callable[[Media, random.Random], torch.Tensor]:
        def process(media: Media, rng: random.Random) -> torch.Tensor:
            return self._get(owner, media, processor).result()

        return process

    def prefetch(self, encoder: SampleEncoder, samples: Sequence[Sample]) -> None:
        """Open the media of samples in the background; does nothing without workers."""
        if self._pool is None:
            return
        for sample in samples:
            for kind, media in (("image", sample.images), ("audio", sample.audios)):
                if kind in encoder.processors:
                    for one in media:
                        self._pool.submit(_quietly, encoder.processors[kind], one)

    def _get(self, owner: str, media: Media, processor: Callable) -> Future[torch.Tensor]:
        key = (owner, *one_key(media))
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                return found
            future: Future[torch.Tensor] = Future()
            self._held[key] = future
        try:
            tensor = processor(media, random.Random(0))
            future.set_result(tensor)
            self._count(tensor.numel() * tensor.element_size())
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, SkipSample):
                raise
        return future

    def _count(self, size: int) -> None:
        with self._lock:
            self._bytes += size
            while self._bytes > self.budget and len(self._held) > 1:
                key, oldest = next(iter(self._held.items()))
                if not oldest.done():
                    return
                del self._held[key]
                if oldest.exception() is None:
                    self._bytes -= oldest.result().numel() * oldest.result().element_size()


def _quietly(processor: Callable, media: Media) -> None:
    with suppress(SkipSample):  # the one who asks for it will meet the same error and count it
        processor(media, random.Random(0))


@dataclass
class Questioner:
    """Everything needed to ask one data set's prompts of one model."""

    model: Any
    encoder: SampleEncoder
    task: Any
    batch_size: int
    device: torch.device
    cache: MediaCache
    rank: int = 0
    world_size: int = 1

    def prompt_text(self, sample: Sample) -> str:
        """The prompt as the template renders it, with marks where media stand."""
        turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
        segments = self.encoder.template.serving.render(turns, open_answer=True)
        marks = {str(kind): mark for kind, mark in MARKS.items()}
        return "".join(marks.get(s.kind, s.text) for s in segments)

    def batches(self, items: Sequence[Item]) -> list[list[Item]]:
        """The items by length of their prompt, cut into batches: a pure function of the items, whoever asks."""
        order = sorted(range(len(items)), key=lambda i: (self._length(items[i].sample), i))
        ranked = [items[i] for i in order]
        return [ranked[i : i + self.batch_size] for i in range(0, len(ranked), self.batch_size)]

    def _length(self, sample: Sample) -> int:
        media = {"image": len(sample.images), "audio": len(sample.audios)}
        slots = sum(count * self.encoder.slots.get(kind, 0) for kind, count in media.items())
        return slots + sum(len(turn.text.encode()) for turn in sample.turns[:-1])

    def ask_all(self, items: Sequence[Item], journal: Journal, decoding: Decoding, label: str) -> None:
        """Answer every item that the journal lacks. A batch that was begun is asked again as a whole, so that its
        answers do not depend on where an earlier run was stopped."""
        batches = self.batches(items)[self.rank :: self.world_size]
        open_batches = [b for b in batches if any(item.sample.id not in journal.rows for item in b)]
        started = shown = time.monotonic()
        for number, batch in enumerate(open_batches):
            if number + 1 < len(open_batches):
                self.cache.prefetch(self.encoder, [item.sample for item in open_batches[number + 1]])
            for row in self.ask(batch, decoding):
                journal.write(row)
            if time.monotonic() - shown > PROGRESS_EVERY_S:
                shown = time.monotonic()
                left = (shown - started) / (number + 1) * (len(open_batches) - number - 1)
                log.info("%s: batch %d of %d, about %.0f s left", label, number + 1, len(open_batches), left)

    def ask(self, batch: Sequence[Item], decoding: Decoding) -> list[Row]:
        """One row per item of the batch, in order; an item whose media cannot be opened gives a row that says so."""
        examples: dict[int, Example] = {}
        reasons: dict[int, SkipSample] = {}
        for place, item in enumerate(batch):
            try:
                examples[place] = self.encoder.prompt(item.sample, random.Random(0))
            except SkipSample as skip:
                reasons[place] = skip
        answers: list[str] = []
        if examples:
            collated = collate(list(examples.values()), self.model.tokenizer.pad_token_id, side="left")
            template = self.encoder.template.serving
            answers = self.model.generate(collated.to(self.device), decoding, stop=template.stop)
            answers = [ANSWER_RULES[template.answer](answer) for answer in answers]
        answered = dict(zip(examples, answers, strict=True))
        return [self._row(item, answered.get(place), reasons.get(place)) for place, item in enumerate(batch)]

    def _row(self, item: Item, answer: str | None, skip: SkipSample | None) -> Row:
        if skip is not None or answer is None:
            assert skip is not None
            return {"id": item.sample.id, "skipped": [skip.reason, skip.detail]}
        row: Row = self.task.prediction(item.sample, self.prompt_text(item.sample), answer, item.donor).row()
        return row


def skips_of(rows: Sequence[Row]) -> Counter[str]:
    """How many rows could not be asked, by reason."""
    return Counter(row["skipped"][0] for row in rows if "skipped" in row)

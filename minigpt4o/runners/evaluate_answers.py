"""Ask the model: prompts in batches of like length, answers written down as they come, nothing asked twice."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
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
from minigpt4o.conversation.objects import Geometry, in_original_frame, written
from minigpt4o.conversation.sample import MARKS, Media, Sample
from minigpt4o.datasets.collate import collate
from minigpt4o.runners.evaluate_items import Item, one_key
from minigpt4o.runners.evaluate_journal import Journal, Row
from minigpt4o.runners.evaluate_ranking import Ranked, rank
from minigpt4o.tasks.choice import GENERATED

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 15.0


Opened = tuple[torch.Tensor, Any]  # what the model sees, and the geometry of a picture whose frame was changed


class Remembering:
    """A processor that looks into a cache first."""

    def __init__(self, cache: MediaCache, owner: str, processor: Callable) -> None:
        self.cache, self.owner, self.processor = cache, owner, processor
        if hasattr(processor, "open"):
            self.open = self._open

    def __call__(self, media: Media, rng: random.Random) -> torch.Tensor:
        return self.cache.get(self.owner, media, self.processor).result()[0]

    def _open(self, media: Media, rng: random.Random, boxes: Sequence[Any] = ()) -> Opened:
        """The picture with its geometry; a prompt's picture does not depend on boxes."""
        return self.cache.get(self.owner, media, self.processor).result()


class MediaCache:
    """Opened pictures and sounds by where they lie: a picture is opened once for all its questions and conditions."""

    def __init__(self, budget: int = 256 << 20, workers: int = 0) -> None:
        self.budget = budget  # bytes of tensors kept
        self._held: OrderedDict[tuple, Future[Opened]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(workers) if workers > 0 else None

    def wrap(self, encoder: SampleEncoder, owner: str) -> None:
        """Let an encoder's processors look here first. `owner` tells apart processors with different settings."""
        encoder.processors = {
            kind: Remembering(self, f"{owner}/{kind}", processor) for kind, processor in encoder.processors.items()
        }

    def prefetch(self, encoder: SampleEncoder, samples: Sequence[Sample]) -> None:
        """Open the media of samples in the background; does nothing without workers."""
        if self._pool is None:
            return
        for sample in samples:
            for kind, media in (("image", sample.images), ("audio", sample.audios)):
                if kind in encoder.processors:
                    for one in media:
                        self._pool.submit(_quietly, encoder.processors[kind], one)

    def get(self, owner: str, media: Media, processor: Callable) -> Future[Opened]:
        """The medium as the processor opens it, now or earlier; its SkipSample too."""
        key = (owner, *one_key(media))
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
                return found
            future: Future[Opened] = Future()
            self._held[key] = future
        try:
            look, rng = getattr(processor, "open", None), random.Random(0)
            opened = look(media, rng) if look is not None else (processor(media, rng), None)
            future.set_result(opened)
            self._count(opened[0].numel() * opened[0].element_size())
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
                    self._bytes -= oldest.result()[0].numel() * oldest.result()[0].element_size()


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
        sample = written(sample)
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
        turns = written(sample).turns
        asked = turns[:-1] if turns and turns[-1].role == "assistant" else turns
        return slots + sum(len(turn.text.encode()) for turn in asked)

    def ask_all(self, items: Sequence[Item], journal: Journal, decoding: Decoding, label: str) -> None:
        """Answer every item that the journal lacks. A batch that was begun is asked again as a whole, so that its
        answers do not depend on where an earlier run was stopped."""
        batches = self.batches(items)[self.rank :: self.world_size]
        open_batches = [b for b in batches if any(item.sample.id not in journal.rows for item in b)]
        pace = Pace(label, sum(map(len, open_batches)))
        for number, batch in enumerate(open_batches):
            if number + 1 < len(open_batches):
                self.cache.prefetch(self.encoder, [item.sample for item in open_batches[number + 1]])
            for row in self.ask(batch, decoding):
                journal.write(row)
            pace.add(len(batch))

    def ask(self, batch: Sequence[Item], decoding: Decoding) -> list[Row]:
        """One row per item of the batch, in order; an item whose media cannot be opened gives a row that says so."""
        examples: dict[int, Example] = {}
        reasons: dict[int, SkipSample] = {}
        for place, item in enumerate(batch):
            try:
                examples[place] = self.encoder.prompt(item.sample, random.Random(0))
            except SkipSample as skip:
                reasons[place] = skip
        ranked = rank(self.model, self.encoder, self.task, examples, self.device)
        said = self._generated({i: e for i, e in examples.items() if self.task.generates(e.sample)}, decoding)
        rows = []
        for place, item in enumerate(batch):
            if place in reasons:
                rows.append(self._unasked(item, reasons[place]))
            else:
                rows.append(self._row(item, said.get(place), ranked.get(place), examples[place].frame))
        return rows

    def _generated(self, examples: Mapping[int, Example], decoding: Decoding) -> dict[int, str]:
        """Answers by the place of their example."""
        if not examples:
            return {}
        collated = collate(list(examples.values()), self.model.tokenizer.pad_token_id, side="left")
        template = self.encoder.template.serving
        answers = self.model.generate(collated.to(self.device), decoding, stop=template.stop)
        clean = ANSWER_RULES[template.answer]
        return {place: clean(answer) for place, answer in zip(examples, answers, strict=True)}

    def _row(self, item: Item, raw: str | None, ranked: Ranked | None, frame: Geometry | None) -> Row:
        """The answer with its boxes in the frame of the original picture, as the true ones and those of choices are."""
        chosen = ranked.answer if ranked is not None else raw
        assert chosen is not None, f"{item.sample.id}: the task neither generates nor gives choices"
        answer = chosen if ranked is not None else in_original_frame(chosen, frame)
        row: Row = self.task.prediction(item.sample, self.prompt_text(item.sample), answer, item.donor).row()
        if answer != chosen:
            row["meta"]["raw_answer"] = chosen
        if ranked is not None:
            row["meta"] |= ranked.meta() | ({GENERATED: raw} if raw is not None else {})
        return row

    def _unasked(self, item: Item, skip: SkipSample) -> Row:
        """No answer, the reason, and the truth it is measured against all the same."""
        row: Row = self.task.prediction(item.sample, self.prompt_text(item.sample), "", item.donor).row()
        return {**row, "skipped": [skip.reason, skip.detail]}


class Pace:
    """Now and then says how far the answers are, how fast they come and how long the rest will take."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self.started = self.shown = time.monotonic()

    def add(self, count: int) -> None:
        """So many more are answered."""
        self.done += count
        now = time.monotonic()
        if now - self.shown < PROGRESS_EVERY_S or self.done >= self.total:
            return
        self.shown = now
        rate = self.done / (now - self.started)
        left = (self.total - self.done) / rate
        words = f"{rate:.1f} per second, about {left:.0f} s left" if rate >= 1 else f"about {left / 60:.0f} min left"
        log.info("%s: %d of %d prompts of this rank, %s", self.label, self.done, self.total, words)


def skips_of(rows: Sequence[Row]) -> Counter[str]:
    """How many rows could not be asked, by reason."""
    return Counter(row["skipped"][0] for row in rows if "skipped" in row)

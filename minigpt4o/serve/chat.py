"""A conversation with a model: turns and media go the way training samples went, the answer comes back as it grows."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.fit import fit_turns
from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import AUDIO_MARK, IMAGE_MARK, Media, Sample, Turn
from minigpt4o.serve.limits import ChatError, Limits, ensure_count, ensure_medium, ensure_text

if TYPE_CHECKING:
    from minigpt4o.conversation.batch import Batch

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Raised in the generating thread when nobody wants the answer any more."""


@dataclass
class Exchange:
    """What a person sent and what came back."""

    text: str  # as typed; marks and special tokens in it are only words
    images: list[Media] = field(default_factory=list)
    audios: list[Media] = field(default_factory=list)
    answer: str = ""


class ChatSession:
    """One person's conversation. The model and the encoder may be shared; the history is not."""

    def __init__(
        self,
        model: Any,
        encoder: SampleEncoder,
        *,
        decoding: Decoding | None = None,
        limits: Limits | None = None,
        context: int = 0,
        separator: str = "",
        system: str = "",
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.decoding = decoding or Decoding()
        self.limits = limits or Limits()
        self.context = context or context_of(model)  # places of a row: text tokens, media and the answer
        self.separator = separator  # between the media and the words of a turn
        self.system = system
        self.exchanges: list[Exchange] = []
        self.note = ""  # what the person should know about the last answer, e.g. that old turns were left out
        self._stop = threading.Event()

    def fresh(self) -> ChatSession:
        """Another conversation with the same model."""
        return ChatSession(
            self.model,
            self.encoder,
            decoding=self.decoding,
            limits=self.limits,
            context=self.context,
            separator=self.separator,
            system=self.system,
        )

    def reset(self) -> None:
        """Forget everything that was said and sent."""
        self.stop()
        self.exchanges, self.note = [], ""

    def stop(self) -> None:
        """End the answer that is being given; what was said of it stays in the history."""
        self._stop.set()

    def ask(self, text: str, images: Sequence[Media] = (), audios: Sequence[Media] = ()) -> Generator[str, None, None]:
        """The answer in pieces as they are generated; afterwards it is part of the history.

        Raises ChatError, before the first piece, if the text or a file cannot be used; the history is then unchanged.
        """
        exchange = self._exchange(text, images, audios)
        batch = self._batch(exchange)
        self._stop.clear()
        self.exchanges.append(exchange)
        try:
            for piece in self._generate(batch):
                exchange.answer += piece
                yield piece
            exchange.answer = ANSWER_RULES[self.encoder.template.serving.answer](exchange.answer)
        except Exception:
            self.exchanges = [e for e in self.exchanges if e is not exchange]
            raise

    # ---- what is sent ----

    def _exchange(self, text: str, images: Sequence[Media], audios: Sequence[Media]) -> Exchange:
        ensure_text(text, self.limits)
        already = sum(len(e.images) + len(e.audios) for e in self.exchanges)
        ensure_count(len(images) + len(audios), already, self.limits)
        for kind, media in (("image", images), ("audio", audios)):
            if media and kind not in self.encoder.slots:
                raise ChatError(f"This model does not take {_PLURAL[kind]}; please send it without.")
            if media and kind not in self.encoder.processors:
                raise ChatError(f"This chat is not set up for {_PLURAL[kind]} (no processor for {kind} under `run`).")
            for medium in media:
                if ensure_medium(medium, self.limits) != kind:
                    raise ChatError(f"{medium} is not one of the {_PLURAL[kind]} that can be read.")
        if not text.strip() and not images and not audios:
            raise ChatError("Please write something, or attach a picture or a sound.")
        return Exchange(text, list(images), list(audios))

    def _batch(self, exchange: Exchange) -> Batch:
        from minigpt4o.datasets.collate import collate

        sample = self._fit(exchange)
        try:
            example = self.encoder.prompt(sample, random.Random(0))
        except SkipSample as problem:
            raise ChatError(explain(problem)) from problem
        batch = collate([example], self.model.tokenizer.pad_token_id or 0, side="left")
        return batch.to(next(self.model.parameters()).device)

    def _fit(self, exchange: Exchange) -> Sample:
        """The conversation without the old words for which there is no room. Its media are all kept."""
        room = self.context - self.decoding.max_new_tokens
        exchanges = [*self.exchanges, exchange]
        sample = self._sample(exchanges)
        try:
            fit = fit_turns(sample.turns[:-1], room, self.encoder.places)
        except SkipSample as problem:
            raise ChatError(explain(problem)) from problem
        if fit.places > room:
            media = self._media_places(exchanges)
            mend = "Please start a new chat (or send fewer files)." if media > room // 2 else "Please shorten it."
            raise ChatError(
                f"This is too long: it takes {fit.places} places ({media} of them for pictures and sounds), and there"
                f" is room for {max(room, 0)}. {mend}"
            )
        dropped = fit.dropped // 2  # a question and its answer
        self.note = ""
        if dropped:
            whose = "turn is" if dropped == 1 else f"{dropped} turns are"
            self.note = f"The chat is longer than the model can read: the words of the oldest {whose} left out."
            if any(e.images or e.audios for e in exchanges[:dropped]):
                self.note += " Their pictures and sounds are kept."
        return replace(sample, turns=fit.turns)

    def _media_places(self, exchanges: Sequence[Exchange]) -> int:
        images = sum(len(e.images) for e in exchanges) * self.encoder.slots.get("image", 0)
        return images + sum(len(e.audios) for e in exchanges) * self.encoder.slots.get("audio", 0)

    def _sample(self, exchanges: Sequence[Exchange]) -> Sample:
        """The conversation as a training sample whose last answer is still empty."""
        turns = [Turn("system", escape_marks(self.system))] if self.system else []
        for exchange in exchanges:
            marks = IMAGE_MARK * len(exchange.images) + AUDIO_MARK * len(exchange.audios)
            words = escape_marks(exchange.text)
            turns.append(Turn("user", marks + (self.separator if marks and words else "") + words))
            turns.append(Turn("assistant", escape_marks(exchange.answer)))
        images = [media for e in exchanges for media in e.images]
        return Sample("chat", turns, images, [media for e in exchanges for media in e.audios], where="the chat")

    # ---- what comes back ----

    def _generate(self, batch: Batch) -> Iterator[str]:
        """Pieces of the answer. The model works in a thread of its own; it ends when this iterator is closed."""
        pieces: queue.Queue[str | BaseException | None] = queue.Queue()
        decoding = replace(self.decoding, seed=self.decoding.seed + len(self.exchanges) - 1)

        def on_text(row: int, piece: str) -> None:
            if self._stop.is_set():
                raise _Stopped
            pieces.put(piece)

        def work() -> None:
            try:
                self.model.generate(batch, decoding, on_text, self.encoder.template.serving.stop)
                pieces.put(None)
            except _Stopped:
                pieces.put(None)
            except BaseException as error:  # noqa: BLE001  it crosses to the thread that waits for it
                pieces.put(error)

        thread = threading.Thread(target=work, name="chat-generate", daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise self._failure(piece) from piece
                yield piece
        finally:
            self._stop.set()
            thread.join()

    def _failure(self, error: BaseException) -> BaseException:
        log.error("an answer could not be generated", exc_info=error)
        if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return ChatError("There is not enough memory for this answer; please start a new chat or send less.")
        if isinstance(error, SkipSample):
            return ChatError(explain(error))
        return ChatError("The answer could not be generated; the reason is in the log of the server.")


_PLURAL = {"image": "pictures", "audio": "sounds"}
_REASONS: Mapping[str, str] = {
    "unreadable_image": "The picture cannot be read",
    "image_too_large": "The picture is too large",
    "extreme_aspect": "The picture is too long and thin",
    "unreadable_audio": "The sound cannot be read",
    "short_audio": "The sound is too short",
    "audio_too_long": "The sound is too long",
    "forbidden_type": "This kind of file is not accepted",
    "missing_file": "The file is not there",
    "read_error": "The file cannot be read",
    "bad_text": "The text cannot be used",
    "media_mismatch": "These files do not fit this model",
    "too_long": "This is too long",
}


def explain(problem: SkipSample) -> str:
    """A sentence for the person in the chat."""
    return f"{_REASONS.get(problem.reason, 'This cannot be used')} ({problem.detail})."


def context_of(model: Any) -> int:
    """How many places a row of this model may have: the positions of its language model, else 2048."""
    config = getattr(getattr(getattr(model, "llm", None), "model", None), "config", None)
    return int(getattr(config, "max_position_embeddings", None) or 2048)

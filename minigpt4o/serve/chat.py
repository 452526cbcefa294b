"""A conversation with a model: turns and media go the way training samples went, the answer comes back as it grows."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.fit import fit_turns
from minigpt4o.conversation.marks import count_marks, escape_marks
from minigpt4o.conversation.sample import AUDIO_MARK, BOX_MARK, IMAGE_MARK, Box, Media, Sample, Turn
from minigpt4o.serve.engine import Answering, Engine
from minigpt4o.serve.limits import ChatError, Limits, Note, ensure_count, ensure_medium, ensure_text, explain

__all__ = ["ChatError", "ChatSession", "Exchange", "context_of"]


@dataclass
class Exchange:
    """What a person sent and what came back."""

    text: str  # as typed; marks and special tokens in it are only words
    images: list[Media] = field(default_factory=list)
    audios: list[Media] = field(default_factory=list)
    answer: str = ""
    attempt: int = 0  # how often it was asked again
    boxes: list[Box] = field(default_factory=list)  # said behind the words; `image` counts the pictures of the chat


class ChatSession:
    """One person's conversation. The engine with its model and encoder is shared; the history is not.

    Its methods may be called from any thread, but only one answer is given at a time.
    """

    def __init__(
        self,
        model: Any,
        encoder: SampleEncoder,
        *,
        engine: Engine | None = None,
        decoding: Decoding | None = None,
        limits: Limits | None = None,
        context: int = 0,
        separator: str = "",
        system: str = "",
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.engine = engine or Engine(model, encoder)
        self.decoding = decoding or Decoding()
        self.limits = limits or Limits()
        self.context = context or context_of(model)  # places of a row: text tokens, media and the answer
        self.separator = separator  # between the media and the words of a turn
        self.system = system
        self.exchanges: list[Exchange] = []
        self.notes: list[Note] = []  # what to know about the last answer, e.g. that old turns were left out
        self.last: Answering | None = None  # the last answer: its tokens, times and how it ended
        self._key = uuid.uuid4().hex  # the engine knows the session by it
        self._stop = threading.Event()
        weakref.finalize(self, self.engine.forget, self._key).atexit = False

    @property
    def note(self) -> str:
        """What the person should know about the last answer, in one line; empty if there is nothing."""
        return " ".join(map(str, self.notes))

    def fresh(self) -> ChatSession:
        """Another conversation with the same engine."""
        return ChatSession(
            self.model,
            self.encoder,
            engine=self.engine,
            decoding=self.decoding,
            limits=self.limits,
            context=self.context,
            separator=self.separator,
            system=self.system,
        )

    # ---- what a person does ----

    def ask(
        self, text: str, images: Sequence[Media] = (), audios: Sequence[Media] = (), boxes: Sequence[Box] = ()
    ) -> Generator[str, None, None]:
        """The answer in pieces as they are generated; afterwards it is part of the history.

        Raises ChatError, before the first piece, if the text or a file cannot be used; the history is then unchanged,
        as it is if the answer fails on the way.
        """
        yield from self._answer(self.exchanges, self._exchange(text, images, audios, self.exchanges, boxes))

    def retry(self) -> Generator[str, None, None]:
        """Ask the last question again, in place of its answer. Only a sampled answer will be another one."""
        if not self.exchanges:
            raise ChatError("Nothing was asked yet.", "nothing_asked")
        last = self.exchanges[-1]
        yield from self._answer(self.exchanges[:-1], replace(last, answer="", attempt=last.attempt + 1))

    def edit(self, number: int, text: str) -> Generator[str, None, None]:
        """Ask question `number` (from 0) in other words, with its files; what was said after it is forgotten."""
        if not 0 <= number < len(self.exchanges):
            told = f"There is no message {number + 1} in this chat; it has {len(self.exchanges)}."
            raise ChatError(told, "no_message", n=number + 1, most=len(self.exchanges))
        old, before = self.exchanges[number], self.exchanges[:number]
        yield from self._answer(before, self._exchange(text, old.images, old.audios, before, old.boxes))

    def undo(self) -> Exchange | None:
        """Forget the last question and its answer, and give them back; None if nothing was asked."""
        self.stop()
        if not self.exchanges:
            return None
        *self.exchanges, last = self.exchanges
        self.notes = []
        return last

    def stop(self) -> None:
        """End the answer that is being given; what was said of it stays in the history."""
        self._stop.set()
        if self.last is not None:
            self.last.cancel()

    def reset(self) -> None:
        """Forget everything that was said and sent."""
        self.stop()
        self.exchanges, self.notes, self.last = [], [], None
        self.engine.forget(self._key)

    def to_json(self) -> str:
        """The conversation with its files, and how it was answered, for `from_json`."""
        from minigpt4o.serve.chat_file import written

        return written(self)

    def from_json(self, text: str | bytes) -> ChatSession:
        """Go on with a conversation that `to_json` has written, here in place of the present one.

        A note says if it was held with another model. Raises ChatError if it cannot be used; nothing is then changed.
        Returns the session itself.
        """
        from minigpt4o.serve.chat_file import read

        exchanges, decoding, notes = read(text, self)
        self.reset()
        self.exchanges, self.decoding, self.notes = exchanges, decoding, notes
        return self

    # ---- what is sent ----

    def _exchange(
        self,
        text: str,
        images: Sequence[Media],
        audios: Sequence[Media],
        before: Sequence[Exchange],
        boxes: Sequence[Box] = (),
    ) -> Exchange:
        ensure_text(text, self.limits)
        ensure_count(len(images) + len(audios), sum(len(e.images) + len(e.audios) for e in before), self.limits)
        for kind, media in (("image", images), ("audio", audios)):
            self.ensure_kind(kind, media)
        if not text.strip() and not images and not audios:
            raise ChatError("Please write something, or attach a picture or a sound.", "empty_message")
        pictures = len(images) + sum(len(e.images) for e in before)
        for box in boxes:
            if not 0 <= box.image < pictures:
                told = f"A box lies in picture {box.image + 1}, but there are {pictures} pictures in this chat."
                raise ChatError(told, "lost_box", n=box.image + 1, most=pictures)
        return Exchange(text, list(images), list(audios), boxes=list(boxes))

    def ensure_kind(self, kind: str, media: Sequence[Media]) -> None:
        """Raises ChatError if the model does not take these files, or if they are not what they are said to be."""
        if media and kind not in self.encoder.slots:
            raise ChatError(f"This model does not take {_PLURAL[kind]}; please send it without.", f"model_no_{kind}")
        if media and kind not in self.encoder.processors:
            told = f"This chat is not set up for {_PLURAL[kind]} (no processor for {kind} under `run`)."
            raise ChatError(told, f"chat_no_{kind}")
        for medium in media:
            if ensure_medium(medium, self.limits) != kind:
                told = f"{medium} is not one of the {_PLURAL[kind]} that can be read."
                raise ChatError(told, f"no_{kind}", name=str(medium))

    def _fit(self, exchanges: Sequence[Exchange]) -> Sample:
        """The conversation without the old words for which there is no room. Its media are all kept."""
        room = self.context - self.decoding.max_new_tokens
        sample = self._sample(exchanges)
        try:
            fit = fit_turns(sample.turns[:-1], room, lambda turns: self.engine.places(_with_room_for_boxes(turns)))
        except SkipSample as problem:
            raise explain(problem) from problem
        if fit.places > room:
            media = self._media_places(exchanges)
            full = media > room // 2
            mend = "Please start a new chat (or send fewer files)." if full else "Please shorten it."
            raise ChatError(
                f"This is too long: it takes {fit.places} places ({media} of them for pictures and sounds), and there"
                f" is room for {max(room, 0)}. {mend}",
                "no_room_for_files" if full else "no_room",
                n=fit.places,
                media=media,
                most=max(room, 0),
            )
        dropped = fit.dropped // 2  # a question and its answer
        self.notes = []
        if dropped:
            whose = "turn" if dropped == 1 else f"{dropped} turns"
            told = f"The chat is longer than the model can read: the words of the oldest {whose} are left out."
            self.notes.append(Note(told, "left_out", {"n": dropped}))
            if any(e.images or e.audios for e in exchanges[:dropped]):
                self.notes.append(Note("Their pictures and sounds are kept.", "files_kept"))
        said = sum(count_marks(turn.text, BOX_MARK) for turn in fit.turns)
        return replace(sample, turns=fit.turns, boxes=sample.boxes[len(sample.boxes) - said :])

    def _media_places(self, exchanges: Sequence[Exchange]) -> int:
        images = sum(len(e.images) for e in exchanges) * self.encoder.slots.get("image", 0)
        return images + sum(len(e.audios) for e in exchanges) * self.encoder.slots.get("audio", 0)

    def _sample(self, exchanges: Sequence[Exchange]) -> Sample:
        """The conversation as a training sample whose last answer is still empty."""
        turns = [Turn("system", escape_marks(self.system))] if self.system else []
        for exchange in exchanges:
            marks = IMAGE_MARK * len(exchange.images) + AUDIO_MARK * len(exchange.audios)
            words = escape_marks(exchange.text)
            if exchange.boxes:
                words += " " * bool(words and not words[-1].isspace()) + BOX_MARK * len(exchange.boxes)
            turns.append(Turn("user", marks + (self.separator if marks and words else "") + words))
            turns.append(Turn("assistant", escape_marks(exchange.answer)))
        images = [media for e in exchanges for media in e.images]
        name = f"chat/{exchanges[-1].attempt}" if exchanges[-1].attempt else "chat"  # another one draws anew
        audios = [media for e in exchanges for media in e.audios]
        boxes = [box for e in exchanges for box in e.boxes]
        return Sample(name, turns, images, audios, boxes=boxes, where="the chat")

    # ---- what comes back ----

    def _answer(self, before: list[Exchange], exchange: Exchange) -> Generator[str, None, None]:
        """Pieces of the answer to `exchange`, which becomes the last of the history."""
        self._stop.clear()
        old, new = self.exchanges, [*before, exchange]
        decoding = replace(self.decoding, seed=self.decoding.seed + len(before))
        answering = self.engine.submit(self._fit(new), decoding, session=self._key)
        self.last, self.exchanges = answering, new
        if exchange.audios and (lost := sum(answering.lost_seconds[-len(exchange.audios) :])):
            told = f"The model hears only so much of a sound: {lost:.1f} seconds were cut."
            self.notes.append(Note(told, "cut_sound", {"n": f"{lost:.1f}"}))
        if self._stop.is_set():  # meanwhile
            answering.cancel()
        try:
            for piece in answering:
                exchange.answer += piece
                yield piece
            exchange.answer = self.engine.clean(exchange.answer)
        except ChatError:
            if self.exchanges is new:
                self.exchanges = old
            raise
        finally:
            answering.cancel()  # whoever listened has left


_PLURAL = {"image": "pictures", "audio": "sounds"}


def _with_room_for_boxes(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with text as long as a box where each box is meant."""
    return [replace(turn, text=turn.text.replace(BOX_MARK, "{<10><10><90><90>}")) for turn in turns]


def context_of(model: Any) -> int:
    """How many places a row of this model may have: the positions of its language model, else 2048."""
    config = getattr(getattr(getattr(model, "llm", None), "model", None), "config", None)
    return int(getattr(config, "max_position_embeddings", None) or 2048)

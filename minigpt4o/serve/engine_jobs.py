"""A request while it is answered, seen from both sides: `Job` by the engine, `Answering` by whoever asked."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from minigpt4o.models.generation_choice import Row
from minigpt4o.serve.engine_boxes import Returning
from minigpt4o.serve.engine_prompts import Prompt

log = logging.getLogger(__name__)

Reason = Literal["", "stop", "length", "cancelled"]


@dataclass(frozen=True)
class EngineStats:
    """What an engine is doing and has done."""

    running: int  # answers being generated
    waiting: int  # requests whose turn has not come
    answered: int  # requests that were answered to their end
    cancelled: int
    failed: int
    prompt_tokens: int  # text tokens of all prompts that were begun
    answer_tokens: int  # tokens of all answers
    media_hits: int  # pictures and sounds met before
    media_misses: int
    reused_tokens: int  # places of prompts whose keys and values were there already


@dataclass(eq=False)
class Job:
    """A request in the engine. Its owner's threads read it; only the engine's thread changes it."""

    prompt: Prompt
    session: str
    started: float  # of time.monotonic
    boxes: Returning | None = None  # moves the answer's boxes, where the frame of their picture was changed
    row: Row = field(init=False)
    alone: bool = False  # it was in a batch that failed: nobody else shall share its first step
    short: bool = False  # memory was short for it, and it was given another try
    counted: bool = False  # its prompt is in the sums
    cancelled: bool = False
    reused: int = 0
    first_token_s: float | None = None
    seconds: float | None = None
    reason: Reason = ""
    error: BaseException | None = None
    pieces: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    listeners: list[Callable[[], None]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.seconds is not None

    def say(self, piece: str) -> None:
        """More of the answer."""
        if self.boxes is not None:
            piece = self.boxes.more(piece)
        if piece:
            self._add(piece)

    def _add(self, piece: str) -> None:
        with self.changed:
            self.pieces.append(piece)
            self.changed.notify_all()
        self._tell()

    def end(self, reason: Reason = "", error: BaseException | None = None) -> None:
        """No more will come. Only the first end counts."""
        with self.changed:
            if self.ended:
                return
            if self.boxes is not None and (rest := self.boxes.rest()):
                self.pieces.append(rest)
            self.reason, self.error = reason, error
            self.prompt.media = {}  # whoever keeps the answer does not keep the features
            self.seconds = time.monotonic() - self.started
            self.changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners):
            try:
                listener()
            except Exception:  # a listener that is gone must not end the answers of others
                log.exception("a listener of an answer failed")


class Answering:
    """An answer that is being given. Iterating gives its pieces as they come; dropping it cancels it."""

    def __init__(self, job: Job, engine: Any, wake: Callable[[], None]) -> None:
        self._job = job
        self._engine = engine  # lives as long as its answers do
        self._wake = wake
        weakref.finalize(self, _cancel, job, wake).atexit = False

    def __iter__(self) -> Iterator[str]:
        """The pieces, also those that came before. Raises ChatError if the answer could not be given."""
        job, given = self._job, 0
        while True:
            with job.changed:
                while len(job.pieces) == given and not job.ended:
                    job.changed.wait()
                new, ended = job.pieces[given:], job.ended
            yield from new
            given += len(new)
            if ended:
                break
        if job.error is not None:
            raise job.error

    def result(self, timeout: float | None = None) -> str:
        """The whole text once it is there. Raises ChatError as iterating does, TimeoutError after so many seconds."""
        job = self._job
        with job.changed:
            if not job.changed.wait_for(lambda: job.ended, timeout):
                raise TimeoutError(f"no answer within {timeout:g} seconds")
        if job.error is not None:
            raise job.error
        return self.text

    def cancel(self) -> None:
        """Give up the rest; its place is free within one step. After the end this does nothing."""
        _cancel(self._job, self._wake)

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after every piece and at the end, in the engine's thread: it must return at once.

        For event loops: `answering.listen(lambda: loop.call_soon_threadsafe(event.set))`. It is called once now, for
        what has come before.
        """
        self._job.listeners.append(listener)
        listener()

    @property
    def ended(self) -> bool:
        """Whether no more will come."""
        return self._job.ended

    @property
    def pieces(self) -> tuple[str, ...]:
        """What has come so far."""
        return tuple(self._job.pieces)

    @property
    def text(self) -> str:
        """What has come so far, as one text; after the end, the answer."""
        return "".join(self._job.pieces)

    @property
    def error(self) -> BaseException | None:
        """Why the answer could not be given: a ChatError."""
        return self._job.error

    @property
    def finish_reason(self) -> Reason:
        """`stop`: the model ended it; `length`: it may not be longer; `cancelled`; "" while it runs or if it failed."""
        return self._job.reason

    @property
    def prompt_ids(self) -> list[int]:
        """What the model was sent: ids of text, and a slot (below 0) where a picture's or sound's feature stands."""
        return list(self._job.prompt.ids)

    @property
    def prompt_tokens(self) -> int:
        """Text tokens of the prompt."""
        return len(self._job.prompt.ids) - self.media_tokens

    @property
    def media_tokens(self) -> int:
        """Places of the prompt that pictures and sounds fill."""
        return self._job.prompt.media_tokens

    @property
    def answer_tokens(self) -> int:
        return len(self._job.row.answer.ids)

    @property
    def reused_tokens(self) -> int:
        """Places of the prompt whose keys and values were there from the session's last turn."""
        return self._job.reused

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the request to the first token; None before it."""
        return self._job.first_token_s

    @property
    def seconds(self) -> float | None:
        """Seconds from the request to the end; None before it."""
        return self._job.seconds

    @property
    def lost_seconds(self) -> list[float]:
        """Of each sound of the prompt, how many seconds the model does not hear because it is too long."""
        return self._job.prompt.lost


def _cancel(job: Job, wake: Callable[[], None]) -> None:
    if not job.ended:
        job.cancelled = True
        wake()

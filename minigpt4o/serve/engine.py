"""One model for many who ask at once: requests that wait together are answered together, token by token.

    engine = Engine(model, encoder)
    answering = engine.submit(sample, Decoding(max_new_tokens=32), session="room 7")
    for piece in answering: ...
    answering.result(), answering.finish_reason, answering.first_token_s

A request may come at any time: it joins the others at their next step. Its answer is that of `model.generate` for it
alone, whoever runs beside it.
"""

from __future__ import annotations

import atexit
import copy
import logging
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.conversation.answers import ANSWER_RULES
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.sample import Sample, Turn
from minigpt4o.models.answer import Answer
from minigpt4o.models.generate import check_decoding, ends_of, token_limit
from minigpt4o.models.generation_choice import Row
from minigpt4o.serve.engine_boxes import Returning
from minigpt4o.serve.engine_jobs import Answering, EngineStats, Job
from minigpt4o.serve.engine_media import MediaCache
from minigpt4o.serve.engine_prompts import Prompt, PromptMaker
from minigpt4o.serve.engine_queue import Queue
from minigpt4o.serve.engine_reuse import KeptCaches
from minigpt4o.serve.engine_sizes import EngineSizes
from minigpt4o.serve.engine_worker import Worker
from minigpt4o.serve.fingerprint import quick_fingerprint
from minigpt4o.serve.limits import ChatError, EngineBusy, explain

__all__ = ["Answering", "Engine", "EngineBusy", "EngineSizes", "EngineStats"]

log = logging.getLogger(__name__)
_RUNNING: dict[threading.Thread, Queue] = {}  # also those of engines that nobody holds any more


@atexit.register
def _close_all() -> None:
    """Threads that compute while the interpreter is taken down may crash it."""
    for thread, queue in list(_RUNNING.items()):
        queue.close()
        thread.join()


class Engine:
    """Answers samples in a thread of its own, which owns the model and begins with the first request.

    `encoder` must be the one the model's chats use; `sizes` are those of `EngineSizes`, by name.
    """

    def __init__(self, model: Any, encoder: SampleEncoder, **sizes: int) -> None:
        self.model, self.encoder = model, encoder
        self.sizes = EngineSizes(**sizes)
        self._media = MediaCache(self.sizes.media_cache_mb * 2**20)
        self._kept = KeptCaches(self.sizes.reuse_mb * 2**20)
        self._queue = Queue(self.sizes.max_waiting)
        self._prompts = PromptMaker(encoder, self._media)
        self._worker = Worker(model, self._queue, self._media, self._kept, self.sizes.max_batch)
        self._fingerprint: str | None = None
        self._reading: Any = None  # a tokenizer for the engine's thread alone
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        weakref.finalize(self, self._queue.close)  # whoever drops an engine ends its thread

    def submit(self, sample: Sample, decoding: Decoding, *, stop: Sequence[str] = (), session: str = "") -> Answering:
        """Begin to answer a sample; a final assistant turn of it is left out. Boxes, those of the answer too, are in
        the frame of the pictures as they were sent, whatever a processor crops or pads.

        `stop`: strings that end the answer beside those of the template. `session`: whose conversation it is; if it
        begins as the session's last one did, with its answer, that part is not computed again. Random draws come
        from (decoding.seed, sample.id). Raises ChatError for what the person can mend, before anything is computed,
        and EngineBusy if too many wait.
        """
        started = time.monotonic()
        try:
            check_decoding(decoding)
        except ConfigError as error:
            raise ChatError(f"This cannot be generated: {error}.", "bad_settings", detail=str(error)) from error
        self._queue.reserve()
        try:
            job = self._job(sample, session, started)
            job.row = self._row(job, decoding, stop)
        except BaseException:
            self._queue.release()
            raise
        self._start()
        self._queue.add(job)
        return Answering(job, self, self._queue.wake)

    def places(self, turns: Sequence[Turn]) -> int:
        """Places of the model's row that a prompt of these turns takes, media included."""
        with self._prompts.lock:
            return self.encoder.places(turns)

    def clean(self, text: str) -> str:
        """An answer as the template says it is shown in the end."""
        return ANSWER_RULES[self.encoder.template.serving.answer](text)

    @property
    def fingerprint(self) -> str:
        """What tells this model from others with other weights; read from a few numbers of each tensor."""
        if self._fingerprint is None:
            self._fingerprint = quick_fingerprint(self.model)
        return self._fingerprint

    def forget(self, session: str) -> None:
        """Let go of what is kept for a session that is over."""
        self._kept.forget(session)

    def stats(self) -> EngineStats:
        """What is going on now, and the sums since the beginning."""
        counts = self._worker.counts
        names = ("answered", "cancelled", "failed", "prompt_tokens", "answer_tokens", "reused_tokens")
        return EngineStats(
            running=self._worker.running,
            waiting=len(self._queue),
            media_hits=self._media.hits,
            media_misses=self._media.misses,
            **{name: counts[name] for name in names},
        )

    def close(self) -> None:
        """End all answers as cancelled, and the thread. Nobody can ask any more."""
        self._queue.close()
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # ---- a request ----

    def _job(self, sample: Sample, session: str, started: float) -> Job:
        prompt = self._prompt(sample)
        boxes = Returning(prompt.frame) if prompt.frame is not None and not prompt.frame.whole else None
        return Job(prompt, session, started, boxes)

    def _prompt(self, sample: Sample) -> Prompt:
        try:
            prompt = self._prompts.make(sample)
        except SkipSample as problem:
            raise explain(problem) from problem
        except ChatError:
            raise
        except Exception as error:
            log.exception("a request could not be read")
            told = "This message could not be read; the reason is in the log of the server."
            raise ChatError(told, "unread") from error
        limits = [limit for limit in (self._prompts.positions, self.model.llm.max_positions) if limit]
        if limits and len(prompt.ids) > min(limits):
            raise ChatError(
                f"This is too long: it takes {len(prompt.ids)} places ({prompt.media_tokens} of them for pictures and"
                f" sounds), and the model has {min(limits)}. Please shorten it or send fewer files.",
                "long_prompt",
                n=len(prompt.ids),
                media=prompt.media_tokens,
                most=min(limits),
            )
        return prompt

    def _row(self, job: Job, decoding: Decoding, stop: Sequence[str]) -> Row:
        llm, sample = self.model.llm, job.prompt.sample
        with self._prompts.lock:
            if self._reading is None:
                self._reading = copy.deepcopy(llm.tokenizer)
            words, ends = ends_of(llm, [*self.encoder.template.serving.stop, *stop])
        answer = Answer(self._reading, words, ends, decoding.min_new_tokens, job.say)
        return Row(answer, decoding, token_limit(llm, len(job.prompt.ids), decoding), sample.id)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._worker.run, name="engine", daemon=True)
                self._thread.start()
                for ended in [thread for thread in list(_RUNNING) if not thread.is_alive()]:
                    _RUNNING.pop(ended, None)
                _RUNNING[self._thread] = self._queue

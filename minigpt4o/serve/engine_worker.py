"""The engine's thread: between two steps those who wait are taken in, and all that run take each step together."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from minigpt4o.models.generation_beams import beams
from minigpt4o.models.generation_choice import Row
from minigpt4o.models.generation_rows import Rows
from minigpt4o.serve.engine_faults import is_memory, let_go, told, trace
from minigpt4o.serve.engine_jobs import Job
from minigpt4o.serve.engine_media import MediaCache, encode
from minigpt4o.serve.engine_pace import Pace
from minigpt4o.serve.engine_queue import Queue
from minigpt4o.serve.engine_reuse import KeptCaches
from minigpt4o.serve.engine_start import alike, begin_fresh, begin_reused, embedded

log = logging.getLogger(__name__)

Begin = Callable[[Any, Sequence[Job]], Rows]


class Worker:
    """Owns the model; everything here happens in the thread that runs `run`."""

    def __init__(self, model: Any, queue: Queue, media: MediaCache, kept: KeptCaches, max_batch: int) -> None:
        self.model, self.queue, self.media, self.kept = model, queue, media, kept
        self.max_batch = max_batch
        self.room = max_batch  # rows that may run together; less for a while where memory was short
        self.groups: list[Rows] = []  # one, unless the model's caches cannot be put side by side: they take turns
        self.jobs: dict[Row, Job] = {}  # of all rows of the groups
        self.pace = Pace()
        self.searched: list[Job] = []  # in the beam search that is going on
        self.counts: Counter[str] = Counter()

    @property
    def running(self) -> int:
        return len(self.jobs) + len(self.searched)

    def run(self) -> None:
        """Until the queue is closed."""
        while True:
            self.queue.wait(lambda: bool(self.groups))
            if self.queue.closed:
                break
            with torch.no_grad(), self.model.autocast():
                self.turn()
        for job in [*self.jobs.values(), *self.queue.empty()]:
            self._end(job)
        self.groups, self.jobs = [], {}

    def turn(self) -> None:
        """Let go of those who were cancelled, take in those who wait, and one step of everybody."""
        try:
            if self.model.training:
                self.model.eval()
            for group in list(self.groups):
                self._settle(group)
            self._admit()
            for group in list(self.groups):
                self._step(group)
        except Exception as error:  # a fault of the engine itself: who was in it is told, the next ones are served
            log.exception("the engine stumbled")
            jobs, self.groups, self.jobs = list(self.jobs.values()), [], {}
            self._fail(jobs, error)

    # ---- taking in ----

    def _admit(self) -> None:
        room = self.pace.room(self.room - self.running, self.room, len(self.queue))
        turn = self.queue.take(room, search=not self.searched)
        for job in turn.cancelled:
            self._end(job)
        start = time.monotonic()
        try:
            self._begin(turn.rows)
            self.pace.read(len(turn.rows), time.monotonic() - start)
            if turn.searched:
                self._search(turn.searched)
        except Exception as error:  # noqa: BLE001  they wait nowhere any more: nobody else would tell them
            self._fail([job for job in [*turn.rows, *turn.searched] if job.row not in self.jobs], error)

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Let the model read the prompts."""
        jobs = self._seen(jobs)
        fresh = []
        for job in jobs:
            found = self.kept.take(job.session, job.prompt.identities) if job.session and not job.alone else None
            if found is None:
                fresh.append(job)
            else:
                cache, same = found
                self._try([job], partial(begin_reused, cache=cache, same=same))
        for some in [*alike([job for job in fresh if not job.alone]), *([job] for job in fresh if job.alone)]:
            self._try(some, begin_fresh)

    def _seen(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs with their media encoded; one whose media fail, fails alone."""
        try:
            encode(self.model, [m for job in jobs for media in job.prompt.media.values() for m in media], self.media)
        except Exception as error:  # noqa: BLE001  told to whom it concerns
            if len(jobs) == 1:
                self._fail(jobs, error)
                return []
            log.warning("media of %d prompts could not be encoded together\n%s", len(jobs), trace(error))
            self._free(error)
            return [job for some in jobs for job in self._seen([some])]
        return list(jobs)

    def _try(self, jobs: Sequence[Job], begin: Begin) -> None:
        """The first step of these jobs; where it fails, each tries again alone and without what was kept."""
        try:
            rows = begin(self.model, jobs)
            tokens = rows.step()
        except Exception as error:  # noqa: BLE001  told to whom it concerns
            if len(jobs) == 1 and begin is begin_fresh:
                self._fail_or_again(jobs[0], error)
                return
            log.warning("a batch of %d prompts failed; each is tried alone\n%s", len(jobs), trace(error))
            self._free(error)
            rows, tokens = None, []
        if rows is None:
            for job in jobs:
                job.row.rewind_draws()
                self._try([job], begin_fresh)
            return
        for job in jobs:
            self._count_prompt(job)
            self.jobs[job.row] = job
        self.groups.append(rows)
        self._take(rows, tokens)
        self._settle(rows)
        self._unite()

    def _count_prompt(self, job: Job) -> None:
        if not job.counted:  # else it has begun again
            self.counts["prompt_tokens"] += len(job.prompt.ids) - job.prompt.media_tokens
            self.counts["reused_tokens"] += job.reused
        job.counted, job.alone = True, False

    def _unite(self) -> None:
        """Put side by side what can be."""
        together = [group for group in self.groups if group.joinable]
        for group in together[1:]:
            try:
                together[0].join(group)
            except Exception as error:  # noqa: BLE001  told in the log; their rows begin again
                self._again([*self._dissolved(together[0]), *self._dissolved(group)], error)
                return
            self.groups.remove(group)

    # ---- going on ----

    def _step(self, group: Rows) -> None:
        try:
            tokens = group.step()
        except Exception as error:  # noqa: BLE001  told to whom it concerns
            self._scatter(group, error)
            return
        self._take(group, tokens)
        self._settle(group)

    def _take(self, group: Rows, tokens: Sequence[int]) -> None:
        """Hand each row its token. What goes wrong in one row's text ends that row."""
        now = time.monotonic()
        for row, token in zip(group.rows, tokens, strict=True):
            job = self.jobs[row]
            if job.first_token_s is None:
                job.first_token_s = now - job.started
            try:
                row.take(token)
            except Exception as error:  # noqa: BLE001  told to whom it concerns
                self._fail([job], error)

    def _settle(self, group: Rows) -> None:
        """Let those leave who have ended or were cancelled."""
        going = []
        for place, row in enumerate(group.rows):
            job = self.jobs[row]
            if not (job.ended or job.cancelled or row.done):
                going.append(place)
                continue
            self._keep(group, place, job)
            del self.jobs[row]
            self._end(job)
        if not going:
            self.groups.remove(group)
        elif len(going) < len(group):
            try:
                group.keep(going)
                group.trim()
            except Exception as error:  # noqa: BLE001  told in the log; their rows begin again
                self._again(self._dissolved(group), error)

    def _keep(self, group: Rows, place: int, job: Job) -> None:
        """Keep the keys and values of a row that leaves, for the next turn of its session."""
        if not job.session or job.error is not None or not group.joinable:
            return
        identities = [*job.prompt.identities, *job.row.tokens[:-1]]  # the model has not read the last token
        assert len(identities) == group.lengths[place], f"{len(identities)} places in {group.lengths[place]} columns"
        try:
            self.kept.put(job.session, identities, group.cache_of(place))
        except Exception as error:  # noqa: BLE001  nothing but time is lost
            log.warning("the cache of a session could not be kept\n%s", trace(error))
            self._free(error)

    def _end(self, job: Job) -> None:
        """Tell whoever asked that this is all."""
        self.room = min(self.room + 1, self.max_batch)
        if job.ended:
            return
        answered = job.row.done and not (job in self.searched and (job.cancelled or self.queue.closed))
        self.counts["answered" if answered else "cancelled"] += 1
        self.counts["answer_tokens"] += len(job.row.answer.ids)
        job.end(("length" if job.row.cut else "stop") if answered else "cancelled")

    # ---- what goes wrong ----

    def _scatter(self, group: Rows, error: Exception) -> None:
        """A step failed: its rows begin again where they were, each alone, so that only the one to blame fails."""
        jobs = self._dissolved(group)
        if len(jobs) == 1:
            self._fail_or_again(jobs[0], error)
        else:
            self._again(jobs, error)

    def _dissolved(self, group: Rows) -> list[Job]:
        """The jobs of a group that is no more; what it holds is let go, whoever still knows it."""
        self.groups.remove(group)
        group.cache = None
        return [self.jobs.pop(row) for row in group.rows if row in self.jobs]

    def _fail_or_again(self, job: Job, error: Exception) -> None:
        """The one to blame is told; where memory was short, it may try once more when there is room."""
        if is_memory(error) and not job.short:
            job.short = True
            self._again([job], error)
        else:
            self._fail([job], error)

    def _again(self, jobs: Sequence[Job], error: Exception) -> None:
        """Have jobs begin again where they were, each alone, and fewer together where memory was short."""
        log.warning("%d answers begin again where they were, each alone\n%s", len(jobs), trace(error))
        if is_memory(error):
            self.room = max(1, (self.running + len(jobs)) // 2)
        self._free(error)
        for job in jobs:
            job.alone = True
            job.row.rewind_draws()
        self.queue.put_back(jobs)

    def _fail(self, jobs: Sequence[Job], error: BaseException) -> None:
        log.error("%d answers could not be generated\n%s", len(jobs), trace(error))
        for job in jobs:
            if not job.ended:
                self.counts["failed"] += 1
                job.end(error=told(error))
        self._free(error)

    def _free(self, error: BaseException) -> None:
        """Let go of what a failed step holds, and where memory was short of what can be made again."""
        let_go(error)
        if is_memory(error):
            self.kept.clear()
            self.media.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    # ---- beams ----

    def _search(self, jobs: list[Job]) -> None:
        """A beam search from its beginning to its end; after each of its steps everybody else takes one."""
        jobs = self._seen(jobs)
        if not jobs:
            return
        self.searched = jobs

        def on_step() -> bool:
            self.turn()
            return self.queue.closed or all(job.cancelled for job in jobs)

        try:
            for job in jobs:
                self._count_prompt(job)
            embeddings, mask = embedded(self.model, jobs)
            beams(self.model.llm, embeddings, mask, [job.row for job in jobs], on_step)
        except Exception as error:  # noqa: BLE001  told to whom it concerns
            self._fail(jobs, error)
        for job in jobs:
            if job.first_token_s is None:
                job.first_token_s = time.monotonic() - job.started
            self._end(job)
        self.searched = []

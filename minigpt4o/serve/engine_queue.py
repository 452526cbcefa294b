"""Requests whose turn has not come: bounded, in order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from minigpt4o.serve.engine_jobs import Job
from minigpt4o.serve.limits import ChatError, EngineBusy


class Turn(NamedTuple):
    """Those who leave the queue."""

    rows: list[Job]  # answered token by token
    searched: list[Job]  # answered by a beam search
    cancelled: list[Job]


class Queue:
    """Filled from any thread, emptied by the engine's."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.closed = False
        self._waiting: deque[Job] = deque()
        self._coming = 0  # requests whose prompts are being made
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting) + self._coming

    def reserve(self) -> None:
        """A place for a request that is about to come. Raises EngineBusy, or ChatError after the end."""
        with self._changed:
            if self.closed:
                raise ChatError("The model is being closed; please come back later.", "closing")
            if len(self) >= self.size:
                told = f"{len(self)} requests wait already; please try again in a moment."
                raise EngineBusy(told, "busy", n=len(self))
            self._coming += 1

    def release(self) -> None:
        """The request does not come after all."""
        with self._changed:
            self._coming -= 1

    def add(self, job: Job) -> None:
        """The request for which a place was reserved."""
        with self._changed:
            self._coming -= 1
            if not self.closed:
                self._waiting.append(job)
                self._changed.notify_all()
                return
        job.end("cancelled")

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that were taken out before all others."""
        with self._changed:
            self._waiting.extendleft(reversed(jobs))

    def wake(self) -> None:
        """Have the engine's thread look again: something was cancelled."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody may come any more."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait(self, busy: Callable[[], bool]) -> None:
        """Until there is something to do: somebody waits, or is being served, or all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._waiting or busy())

    def take(self, room: int, search: bool) -> Turn:
        """At most `room` jobs in order of arrival, at most one of them (if `search`) for a beam search."""
        turn, left = Turn([], [], []), deque[Job]()
        with self._changed:
            for job in self._waiting:
                beams = job.row.decoding.num_beams > 1
                full = len(turn.rows) + len(turn.searched) >= room
                if job.cancelled or job.ended:
                    turn.cancelled.append(job)
                elif full or (beams and (not search or turn.searched)):
                    left.append(job)
                else:
                    (turn.searched if beams else turn.rows).append(job)
            self._waiting = left
        return turn

    def empty(self) -> list[Job]:
        """Everybody who waits."""
        with self._changed:
            jobs, self._waiting = list(self._waiting), deque()
        return jobs

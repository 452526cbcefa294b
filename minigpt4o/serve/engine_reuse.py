"""Keys and values of a session's last answer: its next prompt begins with the same words and media."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from minigpt4o.models import generation_cache as caches

log = logging.getLogger(__name__)


class KeptCaches:
    """One row's cache for each of the sessions met last, as many as fit into `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[str, tuple[list[int], Any, int]] = OrderedDict()  # session -> identities, cache, bytes
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, session: str, identities: list[int], cache: Any) -> None:
        """Keep the cache of a row of which every place has a number, in place of the session's earlier one."""
        size = caches.bytes_of(cache)
        self.forget(session)
        with self._lock:
            self._held[session] = (identities, cache, size)
            self._bytes += size
            while self._bytes > self.budget:
                _, (_, _, oldest) = self._held.popitem(last=False)
                self._bytes -= oldest

    def take(self, session: str, identities: Sequence[int]) -> tuple[Any, int] | None:
        """The cache of as many first places as are the same, and their number; the last place is always new.

        What is taken is no longer kept here.
        """
        with self._lock:
            known, cache, size = self._held.pop(session, (None, None, 0))
            self._bytes -= size
        if known is None:
            return None
        same = min(_same(known, identities), len(identities) - 1)
        try:
            if same < 1 or not caches.can_rewind(cache, same):
                return None
            caches.rewind(cache, same)
        except Exception:  # nothing but time is lost
            log.exception("the cache of a session could not be taken up")
            return None
        return cache, same

    def forget(self, session: str) -> None:
        """Let go of what is kept for a session."""
        with self._lock:
            _, _, size = self._held.pop(session, (None, None, 0))
            self._bytes -= size

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0


def _same(known: Sequence[int], new: Sequence[int]) -> int:
    """How many first places are equal."""
    return next((i for i, (a, b) in enumerate(zip(known, new, strict=False)) if a != b), min(len(known), len(new)))

"""What the server has done, in Prometheus's text format 0.0.4."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence

from minigpt4o.serve.engine import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # upper edges of the buckets
_PREFIX = "minigpt4o"
_SUMS = {
    "answered": "requests that were answered to their end",
    "cancelled": "requests whose caller left or whose time was over",
    "failed": "requests that could not be answered",
    "prompt_tokens": "text tokens of prompts",
    "answer_tokens": "tokens of answers",
    "media_hits": "pictures and sounds whose features were there already",
    "media_misses": "pictures and sounds that were encoded",
    "reused_tokens": "places of prompts whose keys and values were there already",
}
_NOW = {"running": "answers being generated", "waiting": "requests whose turn has not come"}


class Histogram:
    """Counts of seconds by buckets."""

    def __init__(self, edges: Sequence[float] = SECONDS) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(self.edges, seconds)] += 1
        self.sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """Cumulative, as the format wants it."""
        total = 0
        for edge, count in zip((*self.edges, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{edge}"}} {total}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """Filled in the event loop only."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # (endpoint, status)
        self.seconds = Histogram()  # of chat requests, from arrival to the last byte
        self.first_token = Histogram()

    def text(self, stats: EngineStats) -> str:
        """The page."""
        return "\n".join(self._lines(stats)) + "\n"

    def _lines(self, stats: EngineStats) -> Iterator[str]:
        yield from _head("requests_total", "counter", "HTTP requests by endpoint and status")
        for (endpoint, status), count in sorted(self.requests.items()):
            yield f'{_PREFIX}_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}'
        for name, histogram, what in (
            ("request_seconds", self.seconds, "from the arrival of a chat request to the end of its answer"),
            ("first_token_seconds", self.first_token, "from the arrival of a prompt in the engine to its first token"),
        ):
            yield from _head(name, "histogram", what)
            yield from histogram.lines(f"{_PREFIX}_{name}")
        for name, what in _NOW.items():
            yield from _head(name, "gauge", what)
            yield f"{_PREFIX}_{name} {getattr(stats, name)}"
        for name, what in _SUMS.items():
            yield from _head(f"{name}_total", "counter", what)
            yield f"{_PREFIX}_{name}_total {getattr(stats, name)}"


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {what}"
    yield f"# TYPE {_PREFIX}_{name} {kind}"

"""What a metric gives back: the number, the part of each sample in it, and which variant of the metric it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Measured:
    """A metric over N samples. `value` is the mean of `each`, or `corpus` of the summed `statistics` if it has them."""

    value: float
    each: list[float]  # (N,)
    variant: str  # which definition this is, and whose
    statistics: list[list[float]] = field(default_factory=list)  # (N, K) sums a corpus metric is computed from
    corpus: Callable[[Sequence[float]], float] | None = None  # K sums -> value; not a number where it has none
    unread: list[bool] = field(default_factory=list)  # (N,) answers that could not be read; empty = all could
    better: Literal["higher", "lower"] = "higher"  # error rates are better lower
    groups: list[str] = field(default_factory=list)  # (N,) what samples share (a picture); empty: they share nothing

    def subset(self, rows: Sequence[int]) -> Measured:
        """The same metric over some of the samples (weights learned from all of them, as CIDEr's, stay as they are)."""
        each = [self.each[i] for i in rows]
        statistics = [self.statistics[i] for i in rows] if self.statistics else []
        value = mean(each)
        if self.corpus is not None and statistics:
            value = defined(self.corpus([sum(column) for column in zip(*statistics, strict=True)]))
        unread = [self.unread[i] for i in rows] if self.unread else []
        groups = [self.groups[i] for i in rows] if self.groups else []
        return Measured(value, each, self.variant, statistics, self.corpus, unread, self.better, groups)


def defined(value: float) -> float:
    """The value; 0.0 where there is none (not a number: a share of nothing)."""
    return 0.0 if math.isnan(value) else value


def mean(values: Sequence[float]) -> float:
    """The mean; 0.0 of nothing."""
    return sum(values) / len(values) if values else 0.0

"""Bad samples: one try with one kind of exception, one counter by reason, one file that names them, one limit."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.batch import Example
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import Builder

TRIES = 3  # of reading, if the file system fails for a moment
TRIED_BEFORE_JUDGING = 200  # samples after which the share of bad ones is worth looking at
NAMED = 3  # bad samples that the error names


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be used, and where it would have stood."""

    dataset: str
    index: int
    position: int
    reason: str
    detail: str
    id: str = ""  # empty if the builder could not even name it
    where: str = ""

    def __str__(self) -> str:
        return f"{self.dataset}[{self.index}] {self.reason}: {self.detail}"


def attempt(
    builder: Builder, index: int, rng: random.Random, encode: Callable[[Sample, random.Random], Example]
) -> Example | tuple[str, str, str, str]:
    """The example of one sample, or (reason, detail, id, where) if it cannot be used."""
    sample_id = where = ""
    for number in range(1, TRIES + 1):
        try:
            sample: Sample = builder.sample(index, rng)
            sample_id, where = sample.id, sample.where
            return encode(sample, rng)
        except SkipSample as skip:
            return skip.reason, skip.detail, sample_id, where
        except FileNotFoundError as error:
            return "missing_file", str(error), sample_id, where
        except OSError as error:
            if number == TRIES:
                return "read_error", str(error), sample_id, where
    raise AssertionError("the last try returns")


class BadSamples:
    """Counts by reason, writes each bad sample once to the quarantine file, stops the run above the allowed share."""

    def __init__(self, max_fraction: float, quarantine: Path | None = None) -> None:
        self.max_fraction, self.quarantine = max_fraction, quarantine
        self.good = 0
        self.reasons: Counter[str] = Counter()
        self._first: list[str] = []
        self._written: set[tuple[str, int]] = set()

    @property
    def total(self) -> int:
        """How many bad samples were met."""
        return sum(self.reasons.values())

    def count(self, good: int, bad: Sequence[BadSample]) -> None:
        """Add what one batch brought. Raises DataError once too large a share was bad."""
        self.good += good
        self.reasons.update(b.reason for b in bad)
        self._first += [str(b) for b in bad[: max(NAMED - len(self._first), 0)]]
        self._write([b for b in bad if (b.dataset, b.index) not in self._written])
        tried = self.good + self.total
        if bad and tried >= TRIED_BEFORE_JUDGING and self.total > self.max_fraction * tried:
            raise DataError(self._too_many(tried))

    def state(self) -> dict[str, Any]:
        return {"good": self.good, "reasons": dict(self.reasons), "first": list(self._first)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.good, self.reasons = int(state["good"]), Counter(state["reasons"])
        self._first = list(state["first"])

    def _write(self, bad: Sequence[BadSample]) -> None:
        self._written.update((b.dataset, b.index) for b in bad)
        if self.quarantine is None or not bad:
            return
        self.quarantine.parent.mkdir(parents=True, exist_ok=True)
        with self.quarantine.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(b), ensure_ascii=True) + "\n" for b in bad))

    def _too_many(self, tried: int) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
        first = "\n".join(f"  {word}" for word in self._first)
        listed = f" All are listed in {self.quarantine}." if self.quarantine is not None else ""
        return (
            f"{self.total} of {tried} samples could not be used ({reasons}), more than run.max_bad_fraction "
            f"{self.max_fraction:g} allows. The first:\n{first}\nMend the data, or raise max_bad_fraction.{listed}"
        )

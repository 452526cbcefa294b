"""Bad samples: one try with one kind of exception, one count by set and reason, one file that names them, one limit."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.batch import Example
from minigpt4o.conversation.sample import Sample
from minigpt4o.datasets.base import Builder

TRIES = 3  # of reading, if the file system fails for a moment
PAUSE_S = 0.05  # before the second try, twice that before the third
TRIED_BEFORE_JUDGING = 200  # samples after which the share of bad ones is worth looking at
NAMED = 3  # bad samples that the error names, and that the report names for each reason


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
    builder: Builder, index: int, seed: int, encode: Callable[[Sample, random.Random], Example]
) -> Example | tuple[str, str, str, str]:
    """The example of one sample, or (reason, detail, id, where) if it cannot be used.

    Each try draws from the seed anew: a disk that failed for a moment changes nothing in what is learned.
    """
    sample_id = where = ""
    for number in range(1, TRIES + 1):
        rng = random.Random(seed)
        try:
            sample: Sample = builder.sample(index, rng)
            sample_id, where = sample.id, sample.where
            return encode(sample, rng)
        except SkipSample as skip:
            return skip.reason, skip.detail, sample_id or known_id(builder, index), where
        except FileNotFoundError as error:
            return "missing_file", str(error), sample_id or known_id(builder, index), where
        except OSError as error:
            if number == TRIES:
                return "read_error", str(error), sample_id or known_id(builder, index), where
            time.sleep(PAUSE_S * number)
    raise AssertionError("the last try returns")


def known_id(builder: Any, index: int) -> str:
    """What the builder calls a sample that it cannot give, if it keeps its ids where they can be asked for."""
    inner = getattr(builder, "builder", builder)
    ids = getattr(inner, "ids", None) or getattr(getattr(inner, "table", None), "ids", None)
    try:
        return str(ids[index]) if ids else ""
    except OSError:  # the name stands in the file that could not be read
        return ""


@dataclass
class Tally:
    """One data set's samples: how many were good, how many were bad for which reason, and the first of those."""

    good: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)  # reason -> id, where, detail
    facts: dict[str, float] = field(default_factory=dict)  # what processors noted of good ones: audio_cut_seconds, ...

    def add(self, bad: BadSample) -> None:
        self.reasons[bad.reason] += 1
        self.show(bad.reason, {"id": bad.id or str(bad.index), "where": bad.where, "detail": bad.detail})

    def show(self, reason: str, example: dict[str, str]) -> None:
        """Keep the first few different ones."""
        shown = self.examples.setdefault(reason, [])
        if len(shown) < NAMED and example["id"] not in {e["id"] for e in shown}:
            shown.append(example)

    def note(self, facts: Mapping[str, float]) -> None:
        """Add sums of facts."""
        for fact, value in facts.items():
            self.facts[fact] = self.facts.get(fact, 0) + value

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another tally counted."""
        self.good += int(other["good"])
        self.reasons.update(other["reasons"])
        self.note(other.get("facts", {}))
        for reason, examples in other["examples"].items():
            for example in examples:
                self.show(reason, example)

    def state(self) -> dict[str, Any]:
        examples = {reason: list(shown) for reason, shown in self.examples.items()}
        facts = {"facts": dict(self.facts)} if self.facts else {}
        return {"good": self.good, "reasons": dict(self.reasons), "examples": examples, **facts}


class BadSamples:
    """Counts by data set and reason, names each bad sample once in a file, stops the run above the allowed share."""

    def __init__(self, max_fraction: float, quarantine: Path | None = None) -> None:
        self.max_fraction, self.quarantine = max_fraction, quarantine
        self.sets: dict[str, Tally] = {}
        self._first: list[str] = []
        self._written: set[tuple[str, int]] | None = None  # None: the file has not been looked into

    @property
    def good(self) -> int:
        return sum(tally.good for tally in self.sets.values())

    @property
    def reasons(self) -> Counter[str]:
        """Reason -> how many, over all data sets."""
        return sum((tally.reasons for tally in self.sets.values()), Counter())

    @property
    def total(self) -> int:
        """How many bad samples were met."""
        return sum(self.reasons.values())

    def count(self, good: Mapping[str, int], bad: Sequence[BadSample]) -> None:
        """Add what one batch brought. Raises DataError once too large a share was bad."""
        for name, number in good.items():
            self._of(name).good += number
        if not bad:
            return
        self.note(bad)
        tried = self.good + self.total
        if tried >= TRIED_BEFORE_JUDGING and self.total > self.max_fraction * tried:
            raise DataError(self._too_many(tried))

    def note(self, bad: Sequence[BadSample]) -> None:
        """Count and write down, without a judgement."""
        for one in bad:
            self._of(one.dataset).add(one)
        self._first += [str(b) for b in bad[: max(NAMED - len(self._first), 0)]]
        self._write(bad)

    def note_facts(self, facts: Mapping[str, Mapping[str, float]]) -> None:
        """Add what processors noted while opening media, by data set."""
        for name, noted in facts.items():
            self._of(name).note(noted)

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"first": list(self._first), "sets": {name: tally.state() for name, tally in self.sets.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there; what a state before the counts by data set held is kept under no name."""
        self._first = list(state["first"])
        old = {"": {"good": state.get("good", 0), "reasons": state.get("reasons", {}), "examples": {}}}
        self.sets = tallies([state.get("sets", old)])

    def report(self) -> dict[str, Any]:
        """What `data_report.json` says."""
        return report_of(self.state(), self.max_fraction)

    def _of(self, name: str) -> Tally:
        return self.sets.setdefault(name, Tally())

    def _write(self, bad: Sequence[BadSample]) -> None:
        if self.quarantine is None or not bad:
            return
        if self._written is None:
            self._written = _quarantined(self.quarantine)
        new: dict[tuple[str, int], BadSample] = {}
        for one in bad:
            if (one.dataset, one.index) not in self._written:
                new.setdefault((one.dataset, one.index), one)
        self._written.update(new)
        self.quarantine.parent.mkdir(parents=True, exist_ok=True)
        with self.quarantine.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(b), ensure_ascii=True) + "\n" for b in new.values()))

    def _too_many(self, tried: int) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
        first = "\n".join(f"  {word}" for word in self._first)
        listed = f" All are listed in {self.quarantine}." if self.quarantine is not None else ""
        return (
            f"{self.total} of {tried} samples could not be used ({reasons}), more than run.max_bad_fraction "
            f"{self.max_fraction:g} allows. The first:\n{first}\nMend the data, or raise max_bad_fraction.{listed}"
        )


def merged(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of all ranks as one."""
    together = {name: tally.state() for name, tally in tallies([s["sets"] for s in states]).items()}
    return {"first": [word for s in states for word in s["first"]][:NAMED], "sets": together}


def tallies(states: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Tally]:
    """Data set -> the sum of its tallies."""
    found: dict[str, Tally] = {}
    for state in states:
        for name, counted in state.items():
            found.setdefault(name, Tally()).merge(counted)
    return found


def report_of(state: Mapping[str, Any], max_fraction: float) -> dict[str, Any]:
    """A state in the words of `data_report.json`: shares, and for each data set and reason a count and examples."""
    sets = {}
    for name, tally in sorted(state["sets"].items()):
        reasons = Counter(tally["reasons"]).most_common()
        named = {reason: {"count": count, "examples": tally["examples"].get(reason, [])} for reason, count in reasons}
        facts = {fact: round(value, 3) for fact, value in tally.get("facts", {}).items()}
        sets[name] = {**_shares(tally["good"], sum(tally["reasons"].values())), **facts, "reasons": named}
    whole = _shares(sum(s["good"] for s in sets.values()), sum(s["bad"] for s in sets.values()))
    return {**whole, "max_bad_fraction": max_fraction, "datasets": sets}


def _shares(good: int, bad: int) -> dict[str, Any]:
    return {"good": good, "bad": bad, "bad_fraction": bad / max(good + bad, 1)}


def _quarantined(path: Path) -> set[tuple[str, int]]:
    """The samples a file names already. A last line that a kill cut off is taken away."""
    if not path.is_file():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    return {(row["dataset"], row["index"]) for row in rows}

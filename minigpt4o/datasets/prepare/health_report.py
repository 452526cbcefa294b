"""What the hashes of all samples say together: duplicates inside a split, leaks between splits, the lengths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt4o.datasets.prepare.canonical import NAMED
from minigpt4o.datasets.prepare.health import SplitHealth

TRAIN = "train"
PERCENTILES = (1, 50, 99)


@dataclass(frozen=True)
class Shared:
    """Contents that a training split and a held-out split have in common."""

    train: str  # "dataset train"
    held: str
    same_set: bool
    media: int  # equal media (by bytes, or by place where they were not read)
    near: int  # pictures that look alike and are not equal
    texts: int  # equal texts
    first: list[str]

    def record(self) -> dict[str, Any]:
        return {**self.__dict__}


def _numbers(values: Any) -> np.ndarray:
    return np.frombuffer(values, dtype=np.dtype(values.typecode)) if len(values) else np.zeros(0, np.uint64)


def duplicates(health: SplitHealth) -> tuple[int, list[str]]:
    """(samples equal to an earlier one in text and media, the first three pairs)."""
    whole = _numbers(health.whole)
    if not len(whole):
        return 0, []
    order = np.argsort(whole, kind="stable")
    again = np.flatnonzero(whole[order][1:] == whole[order][:-1]) + 1
    index = _numbers(health.index)
    named = sorted((int(index[order[i]]), int(index[order[i - 1]])) for i in again[: 64 * NAMED])[:NAMED]
    return len(again), [f"[{later}] is [{earlier}] again" for later, earlier in named]


def shared(healths: Sequence[SplitHealth]) -> list[Shared]:
    """Every pair of a training and a held-out split that share contents, the same data set's first."""
    found = []
    for one in (h for h in healths if h.split == TRAIN):
        for other in (h for h in healths if h.split != TRAIN):
            pair = _shared(one, other)
            if pair.media or (pair.same_set and (pair.near or pair.texts)):
                found.append(pair)
    return sorted(found, key=lambda pair: (not pair.same_set, -pair.media))


def _shared(one: SplitHealth, other: SplitHealth) -> Shared:
    media, held = np.unique(_numbers(one.media)), _numbers(other.media)
    leaks = np.isin(held, media)
    near = _numbers(other.near)
    alike = np.isin(near, np.unique(_numbers(one.near))) & (near != 0) & ~leaks
    texts = np.isin(_numbers(other.text), np.unique(_numbers(one.text)))
    places = np.flatnonzero(leaks)[:NAMED]
    return Shared(
        f"{one.dataset} {one.split}",
        f"{other.dataset} {other.split}",
        one.dataset == other.dataset,
        len(np.unique(held[leaks])),
        int(alike.sum()),
        int(texts.sum()),
        [_named(one, other, int(place)) for place in places],
    )


def _named(one: SplitHealth, other: SplitHealth, place: int) -> str:
    first = int(np.flatnonzero(_numbers(one.media) == _numbers(other.media)[place])[0])
    return f"{other.split}[{other.owner[place]}] is {one.split}[{one.owner[first]}]"


def lengths(values: Any) -> dict[str, int]:
    """Shortest, some percentiles, longest; empty if there are none."""
    if not len(values):
        return {}
    numbers = _numbers(values)
    found = {"min": int(numbers.min())}
    found |= {f"p{p}": int(np.percentile(numbers, p)) for p in PERCENTILES}
    return {**found, "max": int(numbers.max())}


def record_of(health: SplitHealth) -> dict[str, Any]:
    """One split as plain values for a JSON file."""
    again, pairs = duplicates(health)
    return {
        "dataset": health.dataset,
        "split": health.split,
        "samples": health.total,
        "looked_at": health.looked,
        "media_known_by": "bytes" if health.by_content else "place",
        "bad": dict(health.bad),
        "first_bad": health.first,
        "duplicates": again,
        "first_duplicates": pairs,
        "asked_characters": lengths(health.asked),
        "answered_characters": lengths(health.answered),
        "scripts": dict(health.scripts.most_common()),
        "boxes": health.boxes,
        "boxes_outside": health.outside,
    }


def published_counts(about: Mapping[str, str], splits: Sequence[str]) -> dict[str, int]:
    """The numbers that `about.count` gives for splits: `train 42,404; val 3,811` or `42,404 train, 3,811 val`."""
    text = about.get("count", "")
    found = {}
    for split in splits:
        word = rf"(?<![\w]){re.escape(split)}(?![\w])"
        match = re.search(rf"{word}\s*[:=(]?\s*(\d[\d,]*)(?![\w.])", text) or re.search(
            rf"(?<![\w.])(\d[\d,]*)\s+(?:in\s+|for\s+)?{word}", text
        )
        if match:
            found[split] = int(match[1].replace(",", ""))
    return found

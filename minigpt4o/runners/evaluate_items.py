"""What is asked: every prompt of a data set, and the same with no media (blind) or with someone else's (shuffled)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError, SkipSample
from minigpt4o.conversation.objects import written
from minigpt4o.conversation.sample import MARKS, Media, Sample, Turn

NAMED = 3  # examples that are named for each fault
SEEN, BLIND, SHUFFLED = "seen", "blind", "shuffled"
CONDITIONS = (SEEN, BLIND, SHUFFLED)

_MARK = re.compile(r"[ \t]*(?:" + "|".join(re.escape(mark) for mark in MARKS.values()) + r")[ \t]*\n?")
MediaKey = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Item:
    """One prompt under one condition."""

    sample: Sample
    donor: str = ""  # id of the sample whose media were given, if not its own


@dataclass
class Asked:
    """All prompts of one data set."""

    items: list[Item]
    skipped: Counter[str] = field(default_factory=Counter)  # samples without a usable prompt, by reason
    details: list[str] = field(default_factory=list)  # which they are, the first ones of each reason
    repeated: list[str] = field(default_factory=list)  # ids that came again; the later ones are called id#2 or id@place
    met: set[str] = field(default_factory=set)  # ids of the samples


@dataclass
class Data:
    """One data set as it is asked."""

    name: str
    task: Any
    asked: Asked
    conditions: dict[str, list[Item]]  # seen, blind, shuffled -> prompts


def ensure_usable(
    name: str, bad: int, good: int, reasons: Mapping[str, int], limit: float, examples: Sequence[str] = ()
) -> None:
    """Raises DataError if more than the share `limit` of the samples cannot be asked; the first example is told."""
    if not good or bad / (bad + good) > limit:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "the split is empty"
        why += f"; first: {examples[0]}" if examples else ""
        raise DataError(
            f"{name}: {bad} of {bad + good} samples cannot be asked ({why}); mend the data or raise "
            f"run.max_bad_fraction (now {limit:g}); answers so far are kept"
        )


def collect(builder: Any, task: Any, name: str, language: str, limit: int | None, seed: int) -> Asked:
    """The prompts of a builder's samples, or of a seeded choice of `limit` samples, in the data's order."""
    indices: Sequence[int] = range(len(builder))
    if limit is not None and limit < len(indices):
        indices = sorted(random.Random(f"{seed}/limit/{name}").sample(indices, limit))
    asked = Asked([])
    known: set[str] = set()
    for index in indices:
        try:
            sample = builder.sample(index, random.Random(f"{seed}/{name}/{index}"))
            written(sample)  # boxes that cannot be written are told here
        except SkipSample as skip:
            asked.skipped[skip.reason] += 1
            if asked.skipped[skip.reason] <= NAMED:
                asked.details.append(str(skip))
            continue
        if sample.id.rpartition("#")[0] in asked.met:  # the builder has told them apart
            asked.repeated.append(sample.id.rpartition("#")[0])
        asked.met.add(sample.id)
        for item in task.items(replace(sample, dataset=name, language=sample.language or language)):
            if item.id in known:
                asked.repeated.append(item.id)
                meta = {"official_id": item.id, **item.meta}
                item = replace(item, id=_unused(f"{item.id}@{index}", known), meta=meta)
            known.add(item.id)
            asked.items.append(Item(item))
    return asked


def _unused(name: str, known: set[str]) -> str:
    while name in known:
        name += "@"
    return name


def secret(task: Any, items: Sequence[Item]) -> bool:
    """Whether nobody tells the truth of any of them, as of a leaderboard's questions: their answers have no score."""
    return not any(item.sample.boxes or task.truth(item.sample) for item in items)


def under(condition: str, items: Sequence[Item], name: str, limit: int | None, seed: int) -> list[Item]:
    """The items as a condition shows them. Baselines leave out what has no media, and may be a seeded subset."""
    if condition == SEEN:
        return list(items)
    shown = [item for item in items if item.sample.images or item.sample.audios]
    if limit is not None and limit < len(shown):
        chosen = sorted(random.Random(f"{seed}/baseline/{name}").sample(range(len(shown)), limit))
        pool, shown = shown, [shown[i] for i in chosen]
    else:
        pool = shown
    if condition == BLIND:
        return [Item(blind(item.sample)) for item in shown]
    if condition == SHUFFLED:
        return shuffled(shown, pool, random.Random(f"{seed}/shuffled/{name}"))
    raise ConfigError(f"run.baselines: unknown baseline {condition!r}; known: {BLIND}, {SHUFFLED}")


def blind(sample: Sample) -> Sample:
    """The sample without media, and without their marks in the user's words."""
    turns = [Turn(t.role, _MARK.sub(" ", t.text).strip()) if t.role == "user" else t for t in sample.turns]
    return replace(sample, turns=turns, images=[], audios=[])


def shuffled(items: Sequence[Item], pool: Sequence[Item], rng: random.Random) -> list[Item]:
    """Each item with the media of another sample of the pool, as many of each kind; never its own.

    The media of the pool are laid in a ring in drawn order, and each is replaced by its successor. An item whose media
    have no other of their kind is left out.
    """
    rings: dict[tuple[int, int], dict[MediaKey, Item]] = {}
    for item in pool:
        rings.setdefault(_kinds(item.sample), {}).setdefault(media_key(item.sample), item)
    follows: dict[MediaKey, Item] = {}
    for ring in rings.values():
        keys = sorted(ring)
        rng.shuffle(keys)
        if len(keys) > 1:
            follows.update({key: ring[after] for key, after in zip(keys, [*keys[1:], keys[0]], strict=True)})
    found = []
    for item in items:
        donor = follows.get(media_key(item.sample))
        if donor is not None:
            given = replace(item.sample, images=donor.sample.images, audios=donor.sample.audios)
            found.append(Item(given, donor.sample.id))
    return found


def _kinds(sample: Sample) -> tuple[int, int]:
    return len(sample.images), len(sample.audios)


def media_key(sample: Sample) -> MediaKey:
    """Which media a sample shows, so that two questions about one picture are known to share it."""
    return tuple(one_key(media) for media in [*sample.images, *sample.audios])


def one_key(media: Media) -> tuple[str, int, int]:
    """Where one picture or sound lies."""
    if media.data is not None:
        return hashlib.sha256(media.data).hexdigest(), 0, len(media.data)
    return media.path, media.offset, media.size


def data_hash(items: Sequence[Item]) -> str:
    """SHA-256 over questions, truths, boxes and names of media: whatever the template and the model, two runs that
    asked the same have the same."""
    digest = hashlib.sha256()
    for item in items:
        sample = item.sample
        boxes = [(box.xyxy, box.image_size) for box in sample.boxes]
        turns = [(turn.role, turn.text) for turn in written(sample).turns]
        media = [PurePath(str(m)).name for m in [*sample.images, *sample.audios]]  # wherever they lie
        row = [sample.id, turns, sample.answers, boxes, media, item.donor, sample.meta]
        digest.update(json.dumps(row, ensure_ascii=True, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def prompts_hash(prompts: Sequence[str]) -> str:
    """SHA-256 over all prompts as the template renders them, in the data's order."""
    return hashlib.sha256("\n\0".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()

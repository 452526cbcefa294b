"""`data check`: a health report of data sets; exit 1 where something is missing, corrupt or leaks."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minigpt4o.cli.data.opening import about_of, chosen_sets, open_splits
from minigpt4o.cli.data.tables import aligned, cut, told_losses
from minigpt4o.cli.listing import say
from minigpt4o.common.errors import DataError
from minigpt4o.common.files import write_json
from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import MediaKind
from minigpt4o.datasets.prepare.health import Look, Looker, SplitHealth
from minigpt4o.datasets.prepare.health_report import Shared, duplicates, lengths, published_counts, record_of, shared
from minigpt4o.datasets.prepare.walk import spread, walk
from minigpt4o.datasets.prepare.writing import whole_file

TROUBLE = 1
_DEFAULT: dict[MediaKind, str] = {"image": "blip2_image_eval", "audio": "log_mel"}


def check(args: argparse.Namespace) -> int:
    """Look at all samples that were asked for; 1 on trouble."""
    sets = chosen_sets(args)
    opened, closed = open_splits(sets, args.split)
    healths = []
    with _bad_list(args.bad) as tell:
        for spec, split, builder in opened:
            healths.append(_look_at(spec, split, builder, args, tell))
            _tell_split(healths[-1], about_of(spec))
    pairs = shared(healths)
    for pair in pairs:
        _tell_shared(pair)
    for name, split, error in closed:
        say(f"\n{name} {split}: CANNOT BE OPENED\n  {cut(str(error), 400)}")
    troubles = _troubles(healths, pairs, closed, args.max_bad)
    if args.json:
        _write(Path(args.json), healths, pairs, closed, troubles)
    if not troubles:
        say(f"\nhealthy: {sum(h.looked for h in healths):,} samples looked at, nothing wrong")
        return 0
    say("\nTROUBLE")
    for trouble in troubles:
        say(f"  {trouble}")
    return TROUBLE


def _look_at(
    spec: DatasetSpec, split: str, builder: Any, args: argparse.Namespace, tell: Callable[[str, str, Look], None]
) -> SplitHealth:
    health = SplitHealth(spec.name, split, len(builder), args.media)
    openers = _openers(spec, split) if args.media else None
    looker = Looker(openers)
    for look in walk(builder, spread(len(builder), args.limit), looker, args.workers):
        health.add(look)
        if look.reason:
            tell(spec.name, split, look)
        if health.looked % 1000 == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{spec.name} {split}: {health.looked:,}")
    return health


def _openers(spec: DatasetSpec, split: str) -> dict[MediaKind, Any]:
    """The processors that training and evaluation open media with; without a choice the plain ones."""
    found: dict[MediaKind, Any] = {}
    chosen: dict[MediaKind, dict[Any, Part]] = {"image": spec.vis_processor, "audio": spec.audio_processor}
    for kind, parts in chosen.items():
        part = parts.get("eval") or parts.get("train")
        found[kind] = _Opener(part or Part("processor", _DEFAULT[kind]))
        if part is not None:
            found[kind].prepare()  # before the workers are started, which then share it
    return found


class _Opener:
    """A processor, built when it is first needed."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.processor: Any = None

    def prepare(self) -> None:
        self.processor = registry.build(self.part)

    def __call__(self, media: Any) -> Any:
        if self.processor is None:
            self.prepare()
        return self.processor(media, random.Random(0))


@contextmanager
def _bad_list(path: str | None) -> Iterator[Callable[[str, str, Look], None]]:
    """Writes a line for every bad sample, if a file was named."""
    if path is None:
        yield lambda dataset, split, look: None
        return
    with whole_file(Path(path)) as file:

        def tell(dataset: str, split: str, look: Look) -> None:
            said = {"dataset": dataset, "split": split, "index": look.index, "id": look.id}
            file.write(json.dumps({**said, "reason": look.reason, "detail": look.detail}, ensure_ascii=False) + "\n")

        yield tell


def _tell_split(health: SplitHealth, about: dict[str, str]) -> None:
    say(f"\n{health.dataset} {health.split}")
    rows = [["samples", f"{health.total:,}"]]
    published = published_counts(about, [health.split]).get(health.split)
    if published is not None and published != health.total:
        rows.append(["published", f"{published:,}"])
    rows += [["looked at", f"{health.looked:,}"]] if health.looked != health.total else []
    rows += [["usable", f"{len(health.whole):,}"], ["duplicates", f"{duplicates(health)[0]:,}"]]
    rows += [["boxes", f"{health.boxes:,}"], ["boxes outside", f"{health.outside:,}"]] if health.boxes else []
    for line in aligned([["  " + name, value] for name, value in rows]):
        say(line)
    for pair in duplicates(health)[1]:
        say(f"    {pair}")
    for name, values in (("asked", health.asked), ("answered", health.answered)):
        words = "  ".join(f"{key} {value:,}" for key, value in lengths(values).items())
        if words:
            say(f"  characters {name:9} {words}")
    usable = max(len(health.whole), 1)
    shares = ", ".join(f"{name} {100 * count / usable:.1f} %" for name, count in health.scripts.most_common(5))
    if shares:
        say(f"  languages  {shares}")
    told_losses(health.bad, health.first, "  ")


def _tell_shared(pair: Shared) -> None:
    kind = "LEAK" if pair.same_set and pair.media else "shared"
    say(f"\n{kind}: {pair.train} and {pair.held}")
    say(f"  equal media {pair.media:,}; pictures alike but not equal {pair.near:,}; equal texts {pair.texts:,}")
    for one in pair.first:
        say(f"    {one}")


def _troubles(
    healths: list[SplitHealth], pairs: list[Shared], closed: list[tuple[str, str, DataError]], max_bad: int
) -> list[str]:
    """What makes the command end with 1."""
    found = [f"{name} {split} cannot be opened" for name, split, _ in closed]
    bad = sum(sum(h.bad.values()) for h in healths)
    if bad > max_bad:
        found.append(f"{bad:,} sample(s) cannot be used; --max-bad allows {max_bad:,}")
    leaks = sum(pair.media for pair in pairs if pair.same_set)
    if leaks > max_bad:
        found.append(f"{leaks:,} medium(s) or text(s) stand in train and in a held-out split of the same data set")
    found += [f"{h.dataset} {h.split}: no sample is usable" for h in healths if not len(h.whole)]
    return found


def _write(
    path: Path,
    healths: list[SplitHealth],
    pairs: list[Shared],
    closed: list[tuple[str, str, DataError]],
    troubles: list[str],
) -> None:
    record = {
        "splits": [record_of(health) for health in healths],
        "shared": [pair.record() for pair in pairs],
        "not_opened": [{"dataset": n, "split": s, "error": str(e)} for n, s, e in closed],
        "trouble": troubles,
    }
    write_json(path, record)
    say(f"written: {path}")

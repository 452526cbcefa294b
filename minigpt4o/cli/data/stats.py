"""`data stats`: how long, how many, how large - the distributions of data sets as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minigpt4o.cli.data.opening import chosen_sets, open_splits
from minigpt4o.cli.data.tables import aligned, cut, number, told_losses
from minigpt4o.cli.listing import say
from minigpt4o.common.errors import SkipSample
from minigpt4o.common.files import write_json
from minigpt4o.datasets.prepare.stats import MEASURES, Measurer, SplitStats, last_answer
from minigpt4o.datasets.prepare.walk import drawn, spread, walk

HEAD = ("count", "mean", "min", "p1", "p25", "p50", "p75", "p99", "max")


def stats(args: argparse.Namespace) -> int:
    """Measure what was asked for; what cannot be used is counted and no trouble here (`data check` judges)."""
    opened, closed = open_splits(chosen_sets(args), args.split)
    records = []
    for spec, split, builder in opened:
        found = SplitStats(spec.name, split, len(builder))
        for measured in walk(builder, spread(len(builder), args.limit), Measurer(args.media), args.workers):
            found.add(measured)
        frequent = [(_answer(builder, index), count) for index, count in found.frequent()]
        _tell(found, frequent)
        records.append(found.record(frequent))
    for name, split, error in closed:
        say(f"\n{name} {split}: cannot be opened: {cut(str(error), 400)}")
    if args.json:
        write_json(Path(args.json), {"splits": records})
        say(f"\nwritten: {args.json}")
    return 0


def _answer(builder: Any, index: int) -> str:
    sample = drawn(builder, index)
    return "" if isinstance(sample, SkipSample) else last_answer(sample)


def _tell(found: SplitStats, frequent: list[tuple[str, int]]) -> None:
    say(f"\n{found.dataset} {found.split}: {found.total:,} samples")
    rows = [["", *HEAD]]
    for name in MEASURES:
        if values := found.spread(name):
            rows.append([f"  {name}", *(number(round(values[key], 2)) for key in HEAD)])
    for line in aligned(rows):
        say(line)
    usable = max(len(found.answers), 1)
    if found.scripts:
        shares = ", ".join(f"{name} {100 * count / usable:.1f} %" for name, count in found.scripts.most_common(5))
        say(f"  languages: {shares}")
    if frequent:
        say(f"  most frequent of {found.different():,} different answers:")
        for line in aligned([[f"{count:,}", cut(text, 80)] for text, count in frequent], right=False):
            say(f"    {line}")
    if found.unread:
        say(f"  headers that could not be read: {found.unread:,}")
    told_losses(found.bad, found.first, "  ")

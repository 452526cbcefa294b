"""`data list`: the known sets, whose they are, where their files are looked for, and whether they are here."""

from __future__ import annotations

import argparse
import glob
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.cli.data.tables import aligned, cut
from minigpt4o.cli.listing import say
from minigpt4o.datasets.known import KnownSet, known_set, known_sets, markdown
from minigpt4o.datasets.splits import REMOTE, expand_braces

WIDTH = 104  # letters of a line of prose
LOOKED_AT = 3  # files of a long pattern that are looked for: the first, the middle, the last
WIDEST = 40  # letters of a cell in the overview


@dataclass(frozen=True)
class Whereabouts:
    """Which files of a set there are."""

    found: int
    wanted: int
    missing: list[str]

    @property
    def word(self) -> str:
        if not self.wanted:
            return "unknown"
        return "here" if self.found == self.wanted else "in part" if self.found else "not here"


def list_sets(args: argparse.Namespace) -> int:
    """The overview, or all about one set."""
    sets = known_sets() if args.name is None else {args.name: known_set(args.name)}
    if args.markdown:
        say(markdown(sets.values()).rstrip("\n"))
    elif args.json:
        say(json.dumps({name: _record(one) for name, one in sets.items()}, indent=2, ensure_ascii=False))
    elif args.name is None:
        _overview(sets)
    else:
        _whole(sets[args.name])
    return 0


def whereabouts(one: KnownSet) -> Whereabouts:
    """Looks for the annotations of every split, for the media folder, and for three shards of each row of tars."""
    missing: list[str] = []
    looked = 0
    for pattern in dict.fromkeys(one.annotations.values()):
        names = expand_braces(pattern)
        names = [names[i * (len(names) - 1) // max(LOOKED_AT - 1, 1)] for i in range(LOOKED_AT)]
        for name in dict.fromkeys(names):
            looked += 1
            if not REMOTE.match(name) and not _is_there(name):
                missing.append(name)
    if one.media_root:
        looked += 1
        missing += [] if Path(one.media_root).expanduser().is_dir() else [one.media_root]
    return Whereabouts(looked - len(missing), looked, missing)


def _is_there(name: str) -> bool:
    path = Path(name).expanduser()
    return path.exists() or (any(c in name for c in "*?[") and bool(glob.glob(str(path))))


def _record(one: KnownSet) -> dict[str, Any]:
    state = whereabouts(one)
    return {
        "what": one.what,
        "builder": one.builder,
        "language": one.language,
        "about": dict(one.about),
        "annotations": dict(one.annotations),
        "media_root": one.media_root,
        "files": state.word,
        "missing": state.missing,
    }


def _overview(sets: Mapping[str, KnownSet]) -> None:
    rows = [["name", "builder", "language", "count", "licence", "files"]]
    for name, one in sets.items():
        told = [one.about.get(key, "") for key in ("count", "licence")]
        rows.append([name, one.builder, one.language, *(cut(cell, WIDEST) for cell in told), whereabouts(one).word])
    for line in aligned(rows, right=False):
        say(line)
    say(f"\n{len(sets)} known sets; all about one: data list NAME; from nothing to its files: data download NAME")


def _whole(one: KnownSet) -> None:
    state = whereabouts(one)
    say(f"{one.name}: {one.what}")
    for key, word in {"builder": one.builder, "language": one.language, "like": one.like}.items():
        if word:
            say(f"  {key:9} {word}")
    for key, text in one.about.items():
        for number, line in enumerate(textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)):
            say(f"  {'' if number else key:9} {line}")
    say(f"  looked for, {state.word}:")
    for split, pattern in one.annotations.items():
        say(f"    {split:9} {pattern}")
    if one.media_root:
        say(f"    {'media':9} {one.media_root}")
    for name in state.missing:
        say(f"    missing   {name}")

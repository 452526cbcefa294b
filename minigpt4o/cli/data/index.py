"""`data index`: look through tars once; write counts, sizes and SHA-256 beside them, or into the cache."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from minigpt4o.cli.data.opening import SHARD_ENDINGS, chosen_sets, wanted_splits
from minigpt4o.cli.data.tables import aligned, cut, size_words
from minigpt4o.cli.listing import say
from minigpt4o.common.cache import cache_dir
from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.datasets.shards.files import stored_table, table_of, write_index, write_set_index
from minigpt4o.datasets.shards.table import Facts
from minigpt4o.datasets.splits import expand_braces

NAMED = 3  # damaged or missing shards that are named


@dataclass(frozen=True)
class Indexed:
    """What became of the tars of one folder."""

    facts: dict[str, Facts]  # by file name
    unchanged: int  # those that had a valid index
    listing: Path | None  # the index.json; None if the folder cannot be written


def index(args: argparse.Namespace) -> int:
    """Index what is named; 1 if a shard is damaged or missing."""
    paths, missing = _shards(args)
    if not paths:
        first = f"; the first: {missing[0]}" if missing else ""
        raise DataError(f"{args.what or args.cfg_path}: none of the tars is here{first}")
    damaged = 0
    for folder in sorted({path.parent for path in paths}):
        here = [path for path in paths if path.parent == folder]
        damaged += _told(folder, index_files(here, args.workers, args.again))
    for name in missing[:NAMED]:
        say(f"missing: {name}")
    if len(missing) > NAMED:
        say(f"missing: {len(missing) - NAMED:,} more")
    return 1 if damaged or missing else 0


def _told(folder: Path, found: Indexed) -> int:
    facts = found.facts
    damaged = [fact.damage for fact in facts.values() if fact.damage]
    rows = [["shards", f"{len(facts):,}"], ["samples", f"{sum(fact.groups for fact in facts.values()):,}"]]
    rows += [["members", f"{sum(fact.members for fact in facts.values()):,}"]]
    rows += [["size", size_words(sum(fact.size for fact in facts.values()))]]
    rows += [["unchanged", f"{found.unchanged:,}"], ["damaged", f"{len(damaged):,}"]]
    for line in aligned(rows):
        say(line)
    for damage in damaged[:NAMED]:
        say(f"  {cut(damage)}")
    if found.listing is None:
        say(f"{folder} cannot be written: the indexes lie in {cache_dir('shards')}, and there is no index.json")
    else:
        say(f"written: {found.listing}, and an index beside each tar")
    return len(damaged)


def _shards(args: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """The tars that are there, and the names that are not."""
    what = args.what
    if what and (Path(what).is_dir() or what.endswith(SHARD_ENDINGS)):
        patterns = [f"{what}/*.tar"] if Path(what).is_dir() else expand_braces(what)
        return _matching(patterns)
    paths: list[Path] = []
    missing: list[str] = []
    for spec in chosen_sets(args).values():
        if spec.builder.name not in ("shards", "webdataset"):
            if what or args.dataset:
                raise ConfigError(f"data index: {spec.name} is no set of tars (builder {spec.builder.name})")
            continue
        for split in wanted_splits(spec, None):
            annotations = spec.builder.values["annotations"]
            found, lost = _matching(expand_braces(annotations.get(split, annotations.get("all", ""))))
            paths, missing = [*paths, *found], [*missing, *lost]
    return list(dict.fromkeys(paths)), list(dict.fromkeys(missing))


def _matching(patterns: Sequence[str]) -> tuple[list[Path], list[str]]:
    paths: list[Path] = []
    missing: list[str] = []
    for pattern in patterns:
        found = [Path(pattern)] if Path(pattern).is_file() else []
        if not found and any(c in pattern for c in "*?["):
            found = sorted(map(Path, glob.glob(pattern)))
        paths += found
        missing += [] if found else [pattern]
    return paths, missing


def index_files(paths: Sequence[Path], workers: int, again: bool = False) -> Indexed:
    """Index tars of one folder; each index is written at once, so a stopped command is taken up where it stopped."""
    writable = os.access(paths[0].parent, os.W_OK)
    facts = {} if again else {path.name: fact for path in paths if (fact := _valid(path, writable)) is not None}
    unchanged = len(facts)
    todo = [path for path in paths if path.name not in facts]
    for number, (path, fact) in enumerate(zip(todo, _each(todo, writable, workers), strict=True), start=1):
        facts[path.name] = fact
        _progress(number, len(todo))
    return Indexed(facts, unchanged, write_set_index(paths) if writable else None)


def _valid(path: Path, with_sha256: bool) -> Facts | None:
    """What the index says that is there already, if the tar is still the same."""
    table = stored_table(path)
    return None if table is None or (with_sha256 and not table.facts.sha256) else table.facts


def _each(paths: Sequence[Path], writable: bool, workers: int) -> Iterator[Facts]:
    make = write_index if writable else _into_cache
    if workers < 2 or len(paths) < 2:
        yield from map(make, paths)
        return
    with ProcessPoolExecutor(min(workers, len(paths))) as pool:
        yield from pool.map(make, paths)


def _into_cache(path: Path) -> Facts:
    return table_of(path).facts


def _progress(done: int, total: int) -> None:
    """A line that overwrites itself, for a person at a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done:,} of {total:,} shards" + ("\n" if done == total else ""))
        sys.stderr.flush()

"""Index files of shards: beside the shard or in the cache, used while size and date of the shard are the same."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from minigpt4o.common.cache import cache_dir
from minigpt4o.common.errors import DataError, Minigpt4oError
from minigpt4o.common.files import sha256_of, write_bytes, write_json
from minigpt4o.datasets.shards.counts import INDEX, Promise, set_index
from minigpt4o.datasets.shards.table import Facts, ShardTable
from minigpt4o.datasets.shards.tar import Tar

SUFFIX = ".index"  # after the shard's own name
TICK, COARSE_TICK = 0.02, 2.0  # seconds between two dates that a file system can tell apart

log = logging.getLogger(__name__)


def table_of(path: Path) -> ShardTable:
    """The index of a local shard: as it lies beside it or in the cache, else made now and put into the cache.

    Raises DataError if the shard cannot be read. A damaged shard has an index too: of what lies before the damage.
    """
    found = stored_table(path)
    if found is not None:
        return found
    table = _scan(path)
    return table if _just_written(table.facts) else _kept(table, cached_file(path))


def _just_written(facts: Facts) -> bool:
    """Whether the shard could be written again without its date telling: the clock of a file system ticks slowly."""
    tick = COARSE_TICK if facts.mtime_ns % 10**9 == 0 else TICK
    return 0 <= time.time() - facts.mtime_ns / 1e9 < tick


def stored_table(path: Path) -> ShardTable | None:
    """The index of a shard if there is a valid one; the shard itself is not opened."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    for file in (beside(path), cached_file(path)):
        table = ShardTable.load(file)
        if table is not None and (table.facts.size, table.facts.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return table
    return None


def write_index(path: Path) -> Facts:
    """Index a shard anew, with its SHA-256, and write the index beside it as `NAME.tar.index`."""
    table = _scan(path, with_sha256=True)
    write_bytes(beside(path), table.dump())
    return table.facts


def write_set_index(paths: Sequence[Path]) -> Path:
    """Index all shards of one folder that have no valid index yet, and list them in its `index.json`; returns that."""
    folders = {path.parent for path in paths}
    if len(folders) != 1:
        raise DataError(f"an {INDEX} is of one folder, but the shards lie in: {', '.join(map(str, sorted(folders)))}")
    rows = []
    for path in paths:
        table = ShardTable.load(beside(path))
        stat = path.stat()
        fresh = table is not None and (table.facts.size, table.facts.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        facts = table.facts if table is not None and fresh and table.facts.sha256 else write_index(path)
        rows.append((path.name, Promise(facts.groups, facts.size, facts.sha256)))
    target = folders.pop() / INDEX
    write_json(target, set_index(rows))
    return target


def recorded_sha256(path: Path) -> str:
    """The SHA-256 in the index beside a shard, whatever happened to the shard since; empty if there is none."""
    table = ShardTable.load(beside(path))
    return table.facts.sha256 if table is not None else ""


def beside(path: Path) -> Path:
    """Where a shard's own index file lies."""
    return path.with_name(path.name + SUFFIX)


def cached_file(path: Path) -> Path:
    """Where a shard's index lies in the cache: one for each path, which a newer one replaces."""
    whole = os.path.abspath(path)
    word = hashlib.blake2b(os.fsencode(whole), digest_size=16).hexdigest()
    return cache_dir("shards", "indexes", word[:2]) / f"{word}{SUFFIX}"


def _scan(path: Path, with_sha256: bool = False) -> ShardTable:
    try:
        stat = path.stat()  # before it is read: if it changes meanwhile, the index is already out of date
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    tar = Tar(path)
    facts = {
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "damage": tar.damage,
        "packed": tar.data is not None,
        "path": str(path),
        "sha256": sha256_of(path) if with_sha256 else "",
    }
    return ShardTable.build(tar.members, facts)


def _kept(table: ShardTable, file: Path) -> ShardTable:
    """The same index mapped from a file; the one in memory if it cannot be written."""
    try:
        write_bytes(file, table.dump())
    except (OSError, Minigpt4oError) as error:
        log.debug("%s: the index stays in memory (%s)", file, error)
        return table
    return ShardTable.load(file) or table

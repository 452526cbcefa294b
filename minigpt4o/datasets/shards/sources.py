"""From a `shards` node to its open store: which files or addresses a split names, and what is promised of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from minigpt4o.common.cache import cache_dir
from minigpt4o.common.errors import DataError
from minigpt4o.datasets.shards.counts import INDEX, SIZES, Promise, parse_json, parse_promises
from minigpt4o.datasets.shards.fetch import FetchError, check_source, fetch, hide_secrets
from minigpt4o.datasets.shards.shard import Rules
from minigpt4o.datasets.shards.spool import Spool
from minigpt4o.datasets.shards.store import ShardStore
from minigpt4o.datasets.splits import ALL, REMOTE, SplitConfig, expand_braces, split_files


class ShardsConfig(SplitConfig, Protocol):
    """The fields that say where shards lie and how they are brought."""

    index: str
    allow_remote: bool
    cache_gb: float
    lazy_above: int
    damaged: Literal["refuse", "keep"]
    verify: Literal["size", "sha256"]


def open_store(config: ShardsConfig, split: str, name: str, whole: bool) -> ShardStore:
    """The shards of a split. `whole`: all must be opened, to divide or count their samples."""
    rules = Rules(name, config.damaged, config.verify)
    pattern = config.annotations.get(split, config.annotations.get(ALL, ""))
    locations = expand_braces(pattern)
    if not any(REMOTE.match(location) for location in locations):
        files = [str(path) for path in split_files(config, split, name)]
        return ShardStore(files, rules, lazy_above=config.lazy_above, named=_named(config, name), whole=whole)
    _check_remote(config, locations, name, whole)
    named = _named(config, name) or _found_beside(locations, name)
    spool = Spool(cache_dir("shards", "fetched", name), int(config.cache_gb * 1e9), f"datasets.{name}")
    return ShardStore(locations, rules, lazy_above=config.lazy_above, named=named, spool=spool)


def _check_remote(config: ShardsConfig, locations: Sequence[str], name: str, whole: bool) -> None:
    first = next(location for location in locations if REMOTE.match(location))
    if not config.allow_remote:
        raise DataError(
            f"datasets.{name}: {first!r} is not a local file; download it first and give its path, "
            f"or set datasets.{name}.allow_remote: true to have the shards fetched while they are needed"
        )
    local = [location for location in locations if not REMOTE.match(location)]
    if local:
        raise DataError(f"datasets.{name}: {first!r} is an address but {local[0]!r} a file; name them in two data sets")
    if whole:
        raise DataError(
            f"datasets.{name}: folds, fold_by and lists of questions need every shard at the start, which "
            f"{first!r} and the others are not; download the shards first and give their paths"
        )
    if not config.cache_gb > 0:
        raise DataError(f"datasets.{name}.cache_gb: {config.cache_gb:g} leaves no room for a shard; give gigabytes")
    for location in {location.partition("://")[0]: location for location in locations}.values():
        check_source(location, f"datasets.{name}")


def _named(config: ShardsConfig, name: str) -> dict[str, Promise] | None:
    """The promises of the file that `index:` names."""
    if not config.index:
        return None
    where = f"datasets.{name}.index"
    if REMOTE.match(config.index):
        if not config.allow_remote:
            raise DataError(f"{where}: {config.index!r} is not a local file; set allow_remote: true, or download it")
        raw = b"".join(fetch(config.index, where))
    else:
        try:
            raw = Path(config.index).expanduser().read_bytes()
        except OSError as error:
            raise DataError(f"{where}: {config.index!r} cannot be read ({error.strerror})") from error
    return parse_promises(parse_json(raw, where), where)


def _found_beside(locations: Sequence[str], name: str) -> Mapping[str, Promise]:
    """What an index.json or sizes.json beside fetched shards says; nothing is beside the output of a command."""
    where = f"datasets.{name}"
    said: dict[str, Promise] = {}
    failed: FetchError | None = None
    for folder in dict.fromkeys(loc.rpartition("/")[0] for loc in locations if not loc.startswith("pipe:")):
        for listing in (INDEX, SIZES):
            url = f"{folder}/{listing}"
            try:
                raw = b"".join(fetch(url, where))
            except DataError:  # there is none
                continue
            except FetchError as error:
                failed = error
                continue
            said |= parse_promises(parse_json(raw, hide_secrets(url)), hide_secrets(url))
            break
    if failed is not None and not said:
        raise DataError(f"{failed}; it may say how many samples the shards hold: try again, or name it with `index:`")
    return said

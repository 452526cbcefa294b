"""How many samples each shard promises to hold, from files beside the shards: none need be opened to know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError

INDEX, SIZES = "index.json", "sizes.json"
_TAR_NAME = re.compile(r"[^\s/\"'=?&]+\.(?:tar|tar\.gz|tgz)(?=$|[\s\"'?&#])")


@dataclass(frozen=True, slots=True)
class Promise:
    """What is said of a shard that nobody has looked into."""

    count: int  # samples
    size: int = -1  # bytes of the file; -1: not said
    sha256: str = ""  # of the file; empty: not said


def shard_name(location: str) -> str:
    """File name of a shard from its path, its URL, or the command that brings it."""
    found = _TAR_NAME.findall(location)
    return found[-1] if found else location.rstrip("/").rpartition("/")[2]


def parse_promises(tree: Any, where: str) -> dict[str, Promise]:
    """File name -> promise, of the content of `index.json`, of WebDataset's `sizes.json`, or of an index of `wids`."""
    try:
        if isinstance(tree, Mapping) and isinstance(tree.get("shards"), list):
            rows = tree["shards"]
            return {str(r["name"]): Promise(int(r["count"]), int(r.get("size", -1)), r.get("sha256", "")) for r in rows}
        if isinstance(tree, Mapping) and isinstance(tree.get("shardlist"), list):
            rows = tree["shardlist"]
            return {shard_name(r["url"]): Promise(int(r["nsamples"]), int(r.get("filesize", -1))) for r in rows}
        if isinstance(tree, Mapping):
            return {str(name): Promise(int(count)) for name, count in tree.items() if name != "__len__"}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: is no index of shards ({type(error).__name__}: {error}); {_MAKE}") from error
    raise DataError(f"{where}: holds a {type(tree).__name__}, not an index of shards; {_MAKE}")


_MAKE = "make it with `python -m minigpt4o.cli data index`"


def parse_json(raw: bytes, where: str) -> Any:
    """The value of a JSON file. Raises DataError that names it."""
    try:
        return json.loads(raw)
    except ValueError as error:
        raise DataError(f"{where}: is not valid JSON ({error}); {_MAKE}") from error


def promises_of(locations: Sequence[str], named: Mapping[str, Promise] | None) -> list[Promise | None]:
    """The promise for each local shard, from `named` if given, else from the files of its folder."""
    if named is not None:
        return [named.get(shard_name(location)) for location in locations]
    folders: dict[Path, Callable[[str], Promise | None]] = {}
    found = []
    for location in locations:
        folder, _, name = location.rpartition("/")
        path = Path(folder or ".")
        if path not in folders:
            folders[path] = _look_up(path)
        found.append(folders[path](name))
    return found


def _look_up(folder: Path) -> Callable[[str], Promise | None]:
    """What the files of a folder say of a shard: index.json, sizes.json, img2dataset's 00000_stats.json."""
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    said: dict[str, Promise] = {}
    for listing in (SIZES, INDEX):  # the second knows more
        if listing in names:
            file = folder / listing
            said |= parse_promises(parse_json(file.read_bytes(), str(file)), str(file))

    def of(name: str) -> Promise | None:
        stats = f"{name.partition('.')[0]}_stats.json"
        if name in said or stats not in names:
            return said.get(name)
        return _of_stats(folder / stats)

    return of


def _of_stats(file: Path) -> Promise | None:
    try:
        return Promise(int(json.loads(file.read_bytes())["successes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # some other tool's file


def set_index(rows: Iterable[tuple[str, Promise]]) -> dict[str, Any]:
    """The content of `index.json` for (file name, promise) of each shard."""
    shards = [{"name": name, "count": p.count, "size": p.size, "sha256": p.sha256} for name, p in rows]
    return {"version": 1, "count": sum(row["count"] for row in shards), "shards": shards}

"""One shard of a data set: found or fetched when it is first needed, checked once, its samples built on demand."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.common.files import sha256_of
from minigpt4o.conversation.sample import Media
from minigpt4o.datasets.shards.counts import Promise, shard_name
from minigpt4o.datasets.shards.fetch import FetchError, hide_secrets
from minigpt4o.datasets.shards.files import recorded_sha256, table_of
from minigpt4o.datasets.shards.index import Group, tell_damage
from minigpt4o.datasets.shards.spool import Spool
from minigpt4o.datasets.shards.table import ShardTable, split_name
from minigpt4o.datasets.shards.tar import GUNZIP_LIMIT, Member, gunzip, member_media, read_member

_INDEX = "run `python -m minigpt4o.cli data index` on the shards again if they were changed on purpose"


@dataclass(frozen=True)
class Rules:
    """What a data set wants of its shards."""

    name: str  # of the data set
    damaged: Literal["refuse", "keep"] = "refuse"
    verify: Literal["size", "sha256"] = "size"


class Shard:
    """An archive, local or (with a `spool`) elsewhere."""

    def __init__(self, location: str, rules: Rules, promise: Promise | None = None, spool: Spool | None = None) -> None:
        self.location, self.rules, self.promise, self.spool = location, rules, promise, spool
        self._table: ShardTable | None = None
        self._local: Path | None = None
        self._spoiled = ""  # why none of its samples may be used
        self._verified_by = -1  # process that has computed its SHA-256

    @property
    def path(self) -> str:
        """What it is called in messages."""
        return hide_secrets(self.location) if self.spool else self.location

    @property
    def name(self) -> str:
        """Its file name."""
        return shard_name(self.location) if self.spool else Path(self.location).name

    def __getstate__(self) -> dict[str, Any]:
        keep = self._table if self._table is not None and not self._table.file else None
        return {**self.__dict__, "_table": keep}

    # --- opening

    def local(self) -> Path:
        """The file, fetched if it lies elsewhere. Raises SkipSample if it cannot be had now, DataError if never."""
        if self.spool is None:
            return Path(self.location)
        try:
            return self.spool.get(self.location, self.promise)
        except FetchError as error:
            raise SkipSample("read_error", str(error)) from error
        except DataError as error:
            if self.rules.damaged == "keep":
                raise SkipSample("missing_file", str(error)) from error
            raise

    def prepare(self) -> None:
        """Fetch and index it, so that it costs nothing when its samples are wanted."""
        table_of(self.local())

    @property
    def table(self) -> ShardTable:
        """Its index. Raises DataError if it is damaged or not what was promised and that is to be refused."""
        if self._table is None:
            table = self.open()
            problem = self.problem(table)
            try:
                tell_damage([problem] if problem else [], 1, self.rules.name, self.rules.damaged)
            except DataError:
                self.close()
                raise
        assert self._table is not None
        return self._table

    def open(self) -> ShardTable:
        """Its index, whatever may be wrong with it: see `problem`."""
        self._local = self.local()
        self._table = table_of(self._local)
        return self._table

    def problem(self, table: ShardTable) -> str:
        """What is wrong with the archive, in words; empty if nothing is."""
        facts, promise = table.facts, self.promise
        if facts.damage:
            return f"{facts.damage} ({facts.members} whole members before it)"
        if promise is not None and promise.size not in (-1, facts.size):
            return f"{self.path}: has {facts.size:,} bytes, its index says {promise.size:,}; {_INDEX}"
        if promise is not None and promise.count != facts.groups:
            return f"{self.path}: holds {facts.groups:,} samples, {promise.count:,} are promised for it; {_INDEX}"
        return ""

    def close(self) -> None:
        """Let go of the index, if it can be had again cheaply."""
        if self._table is not None and self._table.file:
            self._table = None

    def recorded_sha256(self) -> str:
        """The SHA-256 that somebody computed when the shard was known to be whole; empty if nobody did."""
        if self.promise is not None and self.promise.sha256:
            return self.promise.sha256
        return "" if self.spool else recorded_sha256(Path(self.location))

    def _verify(self) -> None:
        """Once in each process: the bytes are those that were indexed."""
        self._verified_by = os.getpid()
        said = self.recorded_sha256()
        if sha256_of(self._file()) == said:
            return
        text = f"{self.path}: has another SHA-256 than its index says: bytes inside it changed; {_INDEX}"
        self._spoiled = text
        tell_damage([text], 1, self.rules.name, self.rules.damaged)

    # --- reading

    def group(self, number: int) -> Group:
        """A sample's members. Raises SkipSample if it cannot be had, DataError if the shard must not be used."""
        table = self.table
        if self.rules.verify == "sha256" and self._verified_by != os.getpid():
            self._verify()
        if self._spoiled:
            if self.rules.damaged == "refuse":
                raise DataError(f"datasets.{self.rules.name}: {self._spoiled}")
            raise SkipSample("read_error", self._spoiled)
        if number >= len(table):
            raise SkipSample(
                "missing_member", f"{self.path}: sample {number} is promised, but the shard holds {len(table)}"
            )
        members: dict[str, Member] = {}
        twice = ""
        for extension, member in table.members(number):
            if extension in members:
                twice = extension
            else:
                members[extension] = member
        return Group(self, split_name(next(iter(members.values())).name)[0], members, twice)

    def read(self, member: Member) -> bytes:
        """A member's bytes by one positioned read."""
        return read_member(self._file(), self._unpacked(), member, self.table.facts.mtime_ns)

    def media(self, member: Member) -> Media:
        """A member as a picture or sound to be opened later."""
        made = member_media(self._file(), self._unpacked(), member, self.table.facts.mtime_ns)
        return made if self.spool is None else _renamed(made, f"{self.path}:{member.name}")

    def _file(self) -> Path:
        if self._local is None or self.spool is not None:
            self._local = self.local()
        return self._local

    def _unpacked(self) -> bytes | None:
        return UNPACKED.get(self._file(), self.table.facts.mtime_ns) if self.table.facts.packed else None


def _renamed(media: Media, name: str) -> Media:
    return replace(media, name=name)


class _Unpacked:
    """Compressed archives as they are in memory, the least recently used forgotten."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, stamp: int) -> bytes:
        key = (str(path), stamp)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            data = gunzip(path)
            if data is None:
                raise OSError(f"{path}: was compressed when it was indexed, and is not now")
            self._held[key] = data
            while len(self._held) > 1 and sum(map(len, self._held.values())) > self.limit:
                self._held.popitem(last=False)
            return data


UNPACKED = _Unpacked(GUNZIP_LIMIT)  # of this process

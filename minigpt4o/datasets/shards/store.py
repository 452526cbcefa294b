"""All shards of a split as one row of samples, counted before they are opened where somebody counted them."""

from __future__ import annotations

import logging
import os
import queue
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from minigpt4o.common.errors import DataError, Minigpt4oError, SkipSample
from minigpt4o.datasets.base import sha256
from minigpt4o.datasets.shards.counts import Promise, promises_of
from minigpt4o.datasets.shards.index import Group, index_fingerprint, tell_damage
from minigpt4o.datasets.shards.shard import Rules, Shard
from minigpt4o.datasets.shards.spool import Spool

OPEN_TABLES = 256  # indexes mapped at once, each some hundred kilobytes that processes share
TOLD_FROM = 20  # shards to be indexed at the start from which it is worth a line

log = logging.getLogger(__name__)


class ShardStore:
    """Samples 0..N-1 over shards. With `lazy` a shard is opened when one of its samples is first wanted."""

    def __init__(
        self,
        locations: Sequence[str],
        rules: Rules,
        *,
        lazy_above: int,
        named: Mapping[str, Promise] | None = None,
        spool: Spool | None = None,
        whole: bool = False,
    ) -> None:
        """`named`: promises by file name; `whole`: every shard must be opened whatever is promised."""
        self.rules, self.remote = rules, spool is not None
        promises = promises_of(locations, named if spool is None else named or {})
        self.shards = [Shard(*row, spool) for row in zip(locations, [rules] * len(locations), promises, strict=True)]
        known = sum(p.count for p in promises if p is not None)
        if self.remote and None in promises:
            missing = self.shards[promises.index(None)]
            raise DataError(
                f"datasets.{rules.name}: nobody says how many samples {missing.path} holds; run "
                f"`python -m minigpt4o.cli data index` where the shards lie and name its index.json with `index:`"
            )
        self.lazy = self.remote or (None not in promises and known > lazy_above)
        self.counts = [p.count for p in promises if p is not None] if self.lazy and not whole else self._open_all()
        self.starts = [0, *accumulate(self.counts)]  # (S + 1,) first sample of each shard
        self.exact = not self.remote and len(self) <= lazy_above  # small enough to know every member of every shard
        self._used: OrderedDict[int, None] = OrderedDict()
        self._ahead = _Ahead()
        if rules.verify == "sha256":
            self._check_recorded()

    def __len__(self) -> int:
        return self.starts[-1]

    def find(self, sample: int) -> tuple[int, int]:
        """(shard, place in it) of a sample."""
        number = bisect_right(self.starts, sample) - 1
        return number, sample - self.starts[number]

    def group(self, sample: int) -> Group:
        """A sample's members. Raises SkipSample, DataError: see `Shard.group`."""
        number, place = self.find(sample)
        return self.open(number).group(place)

    def open(self, number: int) -> Shard:
        """A shard that is about to be read; those not used for long let go of their indexes."""
        if number in self._used:
            self._used.move_to_end(number)
        else:
            self._used[number] = None
            if len(self._used) > OPEN_TABLES:
                self.shards[self._used.popitem(last=False)[0]].close()
        return self.shards[number]

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Fetch and index these shards meanwhile, in a thread of this process."""
        if self.lazy:
            self._ahead.want([self.shards[number] for number in numbers])

    def hashes(self) -> np.ndarray:
        """(N,) the 64-bit hash of every sample's key; all shards are opened."""
        tables = [self.open(number).table for number in range(len(self.shards))]
        return np.concatenate([np.empty(0, np.uint64), *(table.hash for table in tables)])

    def fingerprint(self) -> str:
        """What the shards hold: every member's name and place; of a large set the shards' names, counts and sizes."""
        if self.exact:
            return index_fingerprint((s.name, s.table.in_archive_order()) for s in self.shards)
        return sha256(*(f"{s.name}:{count}:{self._size(s)}" for s, count in zip(self.shards, self.counts, strict=True)))

    def _size(self, shard: Shard) -> int:
        if self.remote:
            return shard.promise.size if shard.promise is not None else -1
        return os.stat(shard.location).st_size

    def _open_all(self) -> list[int]:
        """Counts of all shards, each opened; what is wrong with any of them is told at once."""
        if len(self.shards) >= TOLD_FROM:
            log.info("datasets.%s: reading the indexes of %d shards", self.rules.name, len(self.shards))
        counts, problems = [], []
        for number, shard in enumerate(self.shards):
            try:
                table = shard.open()
            except SkipSample as skip:
                raise DataError(f"datasets.{self.rules.name}: {skip.detail}") from skip
            problem = shard.problem(table)
            problems += [problem] if problem else []
            counts.append(len(table))
            if number >= OPEN_TABLES:
                shard.close()
        tell_damage(problems, len(self.shards), self.rules.name, self.rules.damaged)
        return counts

    def _check_recorded(self) -> None:
        without = [shard.path for shard in self.shards if not shard.recorded_sha256()]
        if without:
            raise DataError(
                f"datasets.{self.rules.name}: verify is sha256, but no SHA-256 is recorded for {len(without)} of "
                f"{len(self.shards)} shard(s), the first is {without[0]}; run `python -m minigpt4o.cli data index` on "
                "them while they are known to be whole"
            )


class _Ahead:
    """A thread that prepares shards one after the other. It never fails: who needs the shard finds the error again."""

    def __init__(self) -> None:
        self._process, self._asked, self._jobs = -1, set[str](), queue.SimpleQueue[Shard]()

    def want(self, shards: Sequence[Shard]) -> None:
        """Have these prepared, each once in this process."""
        if self._process != os.getpid():  # threads do not survive a fork
            self._process, self._asked, self._jobs = os.getpid(), set(), queue.SimpleQueue()
            threading.Thread(target=self._work, args=(self._jobs,), name="shards ahead", daemon=True).start()
        for shard in shards:
            if shard.location not in self._asked:
                self._asked.add(shard.location)
                self._jobs.put(shard)

    def _work(self, jobs: queue.SimpleQueue[Shard]) -> None:
        while True:
            shard = jobs.get()
            try:
                shard.prepare()
            except (SkipSample, Minigpt4oError, OSError) as error:
                log.debug("%s: could not be prepared: %s", shard.path, error)
            self._asked.discard(shard.location)

    def __getstate__(self) -> dict[str, int]:
        return {"_process": -1}

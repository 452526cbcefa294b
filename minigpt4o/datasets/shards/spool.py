"""A bounded folder of fetched shards: each whole or absent, the least recently used removed first."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from minigpt4o.common.errors import DataError
from minigpt4o.common.files import room_on_disk
from minigpt4o.datasets.descriptors import FILES
from minigpt4o.datasets.shards.counts import Promise, shard_name
from minigpt4o.datasets.shards.fetch import FetchError, fetch, hide_secrets

TRIES = 3  # of fetching a shard
WAIT = 1.0  # seconds before the second try; twice as long before each further one
SULK = 60.0  # seconds in which a source that failed is not tried again: each of its samples would wait anew
STALE = 86_400  # seconds after which an unfinished file of a dead process is removed

log = logging.getLogger(__name__)


class Spool:
    """Fetched shards of one data set; processes on one machine share the folder."""

    def __init__(self, folder: Path, limit: int, where: str) -> None:
        """`limit` in bytes; `where` is what errors call the data set."""
        self.folder, self.limit, self.where = folder, limit, where
        self._failed: dict[str, tuple[float, str]] = {}
        self._fetched: set[str] = set()

    def file(self, url: str) -> Path:
        """Where a source lies once it is fetched. Of a URL only letters, digits, dots and dashes come into it."""
        word = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        return self.folder / f"{word}-{re.sub(r'[^A-Za-z0-9._-]', '_', shard_name(url))[-80:]}"

    def get(self, url: str, promise: Promise | None = None) -> Path:
        """The local file of a source, fetched if it is not there; it is held open, so removal does not hurt its reader.

        Raises FetchError after three tries, DataError if the source does not exist or is not what was promised.
        """
        path = self.file(url)
        if self._use(path):
            return path
        failed = self._failed.get(url)
        if failed is not None and time.monotonic() - failed[0] < SULK:
            raise FetchError(failed[1])
        with _locked(self.folder / f"{path.name}.lock"):
            if not self._use(path):
                try:
                    self._bring(url, path, promise)
                except FetchError as error:
                    self._failed[url] = time.monotonic(), str(error)
                    raise
                self._use(path)
        return path

    def _use(self, path: Path) -> bool:
        """Note that the file is in use, if it is there. Its date stays: the index of its content goes by it."""
        try:
            stat = path.stat()
            os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
            FILES.hold(str(path), stat.st_mtime_ns)
        except FileNotFoundError:
            return False
        return True

    def _bring(self, url: str, path: Path, promise: Promise | None) -> None:
        if path.name in self._fetched:
            log.warning(
                "%s: %s is fetched again, cache_gb %.3g holds too few shards for this order; "
                "raise cache_gb, or set shuffle: window with fewer window_shards",
                self.where,
                path.name,
                self.limit / 1e9,
            )
        for number in range(1, TRIES + 1):
            try:
                self._write(url, path, promise)
                break
            except FetchError as error:
                if number == TRIES:
                    raise FetchError(f"{error} (tried {TRIES} times)") from error
                log.warning("%s; trying again", error)
                time.sleep(WAIT * 2 ** (number - 1))
        self._fetched.add(path.name)
        self._make_room(path)

    def _write(self, url: str, path: Path, promise: Promise | None) -> None:
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        digest, size = hashlib.sha256(), 0
        try:
            with room_on_disk(path, lambda: size), part.open("wb") as file:
                for piece in fetch(url, self.where):
                    size += len(piece)
                    digest.update(piece)
                    file.write(piece)
            told = hide_secrets(url)
            if promise is not None and promise.size >= 0 and promise.size != size:
                raise FetchError(f"{self.where}: {told} gave {size:,} bytes, its index says {promise.size:,}")
            if promise is not None and promise.sha256 and promise.sha256 != digest.hexdigest():
                raise FetchError(f"{self.where}: {told} has another SHA-256 than its index says")
            made_up = int.from_bytes(digest.digest()[:6], "little")
            os.utime(part, ns=(time.time_ns(), made_up))  # one date for one content: its index stays valid
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        """Remove what was used least recently until the folder is within its limit; the newest stays in any case."""
        files = []
        for file in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                stat = file.stat()
                if file.suffix == ".part" and time.time() - stat.st_mtime > STALE:
                    file.unlink()
                elif file.suffix not in (".part", ".lock"):
                    files.append((stat.st_atime_ns, stat.st_size, file))
        total = sum(size for _, size, _ in files)
        if files and max(size for _, size, _ in files) > self.limit:
            raise DataError(f"{self.where}: cache_gb {self.limit / 1e9:g} is less than the single shard {newest.name}")
        for _, size, file in sorted(files):
            if total <= self.limit:
                return
            if file != newest:
                file.unlink(missing_ok=True)
                total -= size


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process or thread at a time; the lock of a dead process is free."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing is not enough: a process forked meanwhile holds it open too
        os.close(handle)

"""Count the words of any amount of text in bounded memory, in shards on disk from which a stopped run goes on."""

from __future__ import annotations

import gzip
import hashlib
import heapq
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from minigpt4o.common import files
from minigpt4o.common.errors import DataError

log = logging.getLogger(__name__)

BLOCK = 1 << 18  # bytes of text cut at a time
SHARD_BLOCKS = 256  # blocks until a shard is written: what a kill costs at most
SHARD_WORDS = 1_000_000  # different words until a shard is written: what bounds the memory
OPEN_FILES = 100  # shards merged at a time
FORMAT = 1  # of the shards; another number never goes on from old ones

Cut = Callable[[str], Iterable[str]]
Position = tuple[int, int]  # file, block in it


def count_words(paths: Sequence[Path], work: Path, cut: Cut, *, field: str, key: str) -> None:
    """Leave shards of (word, count) in `work` that together count every word of the files.

    `key` names how words are cut; if it, the files or the field changed since shards were written, all is counted anew.
    """
    mark = _fingerprint(paths, field, key)
    work.mkdir(parents=True, exist_ok=True)
    files.sweep(work)
    number, start = _resume(work, mark)
    if start is None:
        return
    words: Counter[str] = Counter()
    since = 0
    for position, block in _blocks(paths, field, start):
        for text in block:
            words.update(cut(text))
        since += 1
        if since >= SHARD_BLOCKS or len(words) >= SHARD_WORDS:
            _write_shard(work, number, mark, words, (position[0], position[1] + 1))
            log.info("counted up to block %d of %s", position[1] + 1, paths[position[0]])
            words, number, since = Counter(), number + 1, 0
    _write_shard(work, number, mark, words, None)


def commonest_words(work: Path, limit: int, min_count: int) -> list[tuple[str, int]]:
    """At most `limit` words of all shards seen at least `min_count` times, commonest first."""
    totals = ((word, count) for word, count in _merged(work) if count >= min_count)
    return heapq.nsmallest(limit, totals, key=lambda item: (-item[1], item[0]))


def _fingerprint(paths: Sequence[Path], field: str, key: str) -> str:
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    told = json.dumps([FORMAT, BLOCK, field, key, stats])
    return hashlib.sha256(told.encode()).hexdigest()


def _shards(work: Path) -> list[Path]:
    return sorted(work.glob("shard-*.gz"))


def _write_shard(work: Path, number: int, mark: str, words: Counter[str], then: Position | None) -> None:
    lines = [json.dumps({"mark": mark, "then": then})]
    lines += (json.dumps(item, ensure_ascii=False) for item in sorted(words.items()))
    files.write_bytes(work / f"shard-{number:06d}.gz", gzip.compress("\n".join(lines).encode(), 1, mtime=0))


def _resume(work: Path, mark: str) -> tuple[int, Position | None]:
    """The number of the next shard and where it starts; None if all is counted."""
    then: Any = (0, 0)
    shards = _shards(work)
    for shard in shards:
        with gzip.open(shard, "rt", encoding="utf-8") as file:
            head = json.loads(file.readline())
        if head["mark"] != mark:
            log.info("%s counts other files or other words: counting anew", work)
            for old in shards:
                old.unlink()
            return 0, (0, 0)
        then = head["then"]
    if shards:
        log.info("%s holds %d shard(s) of counts: going on from there", work, len(shards))
    return len(shards), None if then is None else (then[0], then[1])


def _merged(work: Path) -> Iterator[tuple[str, int]]:
    """Each word of all shards once, in order, with its whole count."""
    with ExitStack() as stack:
        yield from _summed([_words_of(path, stack) for path in _few(_shards(work), work)])


def _few(shards: list[Path], work: Path) -> list[Path]:
    """The same counts in no more files than may be open at once."""
    level = 0
    while len(shards) > OPEN_FILES:
        groups = [shards[i : i + OPEN_FILES] for i in range(0, len(shards), OPEN_FILES)]
        shards = []
        for number, group in enumerate(groups):
            path = work / f"sum-{level}-{number:04d}.gz"
            with ExitStack() as stack, gzip.open(path, "wt", encoding="utf-8", newline="\n", compresslevel=1) as out:
                out.write("{}")
                for item in _summed([_words_of(shard, stack) for shard in group]):
                    out.write("\n" + json.dumps(item, ensure_ascii=False))
            shards.append(path)
        level += 1
    return shards


def _summed(streams: list[Iterator[tuple[str, int]]]) -> Iterator[tuple[str, int]]:
    for word, group in groupby(heapq.merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
        yield word, sum(count for _, count in group)


def _words_of(shard: Path, stack: ExitStack) -> Iterator[tuple[str, int]]:
    file = io.TextIOWrapper(stack.enter_context(gzip.GzipFile(shard)), encoding="utf-8", newline="\n")
    file.readline()
    for line in file:
        word, count = json.loads(line)
        yield word, count


def _blocks(paths: Sequence[Path], field: str, start: Position) -> Iterator[tuple[Position, list[str]]]:
    for number in range(start[0], len(paths)):
        first = start[1] if number == start[0] else 0
        for index, block in enumerate(read_blocks(paths[number], field)):
            if index >= first:
                yield (number, index), block


def read_blocks(path: Path, field: str) -> Iterator[list[str]]:
    """The texts of a file, about a BLOCK of bytes at a time: .txt whole lines, .jsonl a field; also with .gz behind."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    try:
        with gzip.open(path) if suffixes[-1:] == [".gz"] else path.open("rb") as file:
            yield from _json_blocks(file, path, field) if ".jsonl" in suffixes else _text_blocks(file, path)
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); make or fetch it anew") from error


def _text_blocks(file: Any, path: Path) -> Iterator[list[str]]:
    at, rest = 0, b""
    while data := file.read(BLOCK):
        data = rest + data
        end = data.rfind(b"\n") + 1 or _whole_letters(data)
        yield [_decoded(data[:end], path, f"after byte {at:,}")]
        at, rest = at + end, data[end:]
    if rest:
        yield [_decoded(rest, path, f"after byte {at:,}")]


def _whole_letters(data: bytes) -> int:
    """Where to cut text that holds no line end: before a letter of UTF-8 that is not complete."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] >= 0xC0:
            return len(data) - back
    return len(data)


def _json_blocks(file: io.BufferedIOBase, path: Path, field: str) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"line {number:,}"
        try:
            text = json.loads(_decoded(line, path, where))[field]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}, {where}: no JSON object with a field {field!r} ({error})") from error
        if not isinstance(text, str):
            raise DataError(f"{path}, {where}: field {field!r} is {type(text).__name__}, not text")
        block.append(text.encode("utf-8", "replace").decode())  # half of a surrogate pair is no letter
        size += len(line)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _decoded(data: bytes, path: Path, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        told = f"{path}, {where}: not UTF-8 at byte {error.start:,} ({error.reason}); convert the file to UTF-8"
        raise DataError(told) from error

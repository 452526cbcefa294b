"""Files of `predict`: rows from anywhere; answers in order behind a header, a torn end cut and gone on from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.files import room_on_disk
from minigpt4o.runners.evaluate_journal import line_of

log = logging.getLogger(__name__)


STREAM = "-"  # standard input as IN, standard output as OUT


@contextlib.contextmanager
def rows_file(word: str) -> Iterator[Path]:
    """The rows as a file that can be read twice: a stream (`-`, a pipe) is put into a temporary one."""
    source = Path(word)
    if source.is_file():
        yield source
        return
    if word != STREAM and (source.is_dir() or not source.exists()):
        what = "it is a folder" if source.is_dir() else "there is no such file"
        raise DataError(f"{source}: {what}; give a file of JSON lines, or - for standard input")
    with tempfile.TemporaryDirectory() as folder:
        spooled = Path(folder, "standard input" if word == STREAM else source.name)
        with spooled.open("wb") as file, room_on_disk(spooled), _bytes_of(word) as stream:
            shutil.copyfileobj(stream, file)
        yield spooled


def _bytes_of(word: str) -> Any:
    return contextlib.nullcontext(sys.stdin.buffer) if word == STREAM else open(word, "rb")


class Stream:
    """Answers to standard output or a pipe: nothing stands there already, nothing can be gone on from."""

    rows = 0

    def __init__(self, word: str, header: dict[str, Any]) -> None:
        self.path = Path(word)
        self._handle = os.dup(sys.stdout.fileno()) if word == STREAM else os.open(word, os.O_WRONLY)
        _append(self._handle, self.path, line_of({"header": header}))

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        _append(self._handle, self.path, b"".join(map(line_of, rows)))

    def close(self) -> None:
        os.close(self._handle)


def is_stream(word: str) -> bool:
    """Whether OUT is no file that lasts."""
    return word == STREAM or (Path(word).exists() and not Path(word).is_file() and not Path(word).is_dir())


class Output:
    """The file of answers: a header that says whose they are, then one line a row, in the order of the rows."""

    def __init__(self, path: Path, header: dict[str, Any], fresh: bool) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._own()
            if fresh:
                os.ftruncate(self._handle, 0)
            self.rows, whole, size = self._there(header)
            if whole < size:
                log.warning("%s: cut %d bytes of an unfinished line", path, size - whole)
            os.ftruncate(self._handle, whole)
            if not whole:
                _append(self._handle, path, line_of({"header": header}))
        except BaseException:
            os.close(self._handle)
            raise

    def _own(self) -> None:
        """The lock goes away with the process that holds it, however it dies."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{self.path} is being written by another `predict`; name another file") from error

    def _there(self, header: dict[str, Any]) -> tuple[int, int, int]:
        """(rows, bytes of whole lines, bytes) of the file as it is."""
        rows, whole, size = -1, 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            for line in file:
                found = _row(line)
                if found is None:
                    break
                if rows < 0:
                    self._ensure_same(found.get("header"), header)
                elif found.get("row") != rows + 1:
                    raise DataError(f"{self.path}: row {found.get('row')} stands where row {rows + 1} belongs; --fresh")
                rows, whole = rows + 1, whole + len(line)
        return max(rows, 0), whole, size

    def _ensure_same(self, theirs: Any, ours: dict[str, Any]) -> None:
        if not isinstance(theirs, dict):
            raise ConfigError(f"{self.path} is no file of `predict`; name another, or --fresh to write over it")
        differs = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
        if differs:
            raise ConfigError(
                f"{self.path} holds answers of another {' / '.join(differs)}; they cannot be continued: name another "
                "file, or --fresh to start over"
            )

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows; what was written stays whatever happens."""
        _append(self._handle, self.path, b"".join(map(line_of, rows)))

    def close(self) -> None:
        os.fsync(self._handle)
        os.close(self._handle)


def _append(handle: int, path: Path, data: bytes) -> None:
    view = memoryview(data)
    with room_on_disk(path):
        while len(view):
            view = view[os.write(handle, view) :]


def _row(line: bytes) -> dict[str, Any] | None:
    """A whole line of ours."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and ("row" in found or "header" in found) else None

"""The file that `predict` writes: a header, then one line a row in order; a torn end is cut and gone on from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.files import room_on_disk
from minigpt4o.runners.evaluate_journal import line_of

log = logging.getLogger(__name__)


class Output:
    """The file of answers: a header that says whose they are, then one line a row, in the order of the rows."""

    def __init__(self, path: Path, header: dict[str, Any], fresh: bool) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self.rows, whole, size = self._there(header)
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if whole < size:
            log.warning("%s: cut %d bytes of an unfinished line", path, size - whole)
        os.ftruncate(self._handle, whole)
        if not whole:
            self._append(line_of({"header": header}))

    def _there(self, header: dict[str, Any]) -> tuple[int, int, int]:
        """(rows, bytes of whole lines, bytes) of the file as it is."""
        if not self.path.is_file():
            return 0, 0, 0
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
        self._append(b"".join(map(line_of, rows)))

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        with room_on_disk(self.path):
            while len(view):
                view = view[os.write(self._handle, view) :]

    def close(self) -> None:
        os.fsync(self._handle)
        os.close(self._handle)


def _row(line: bytes) -> dict[str, Any] | None:
    """A whole line of ours."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and ("row" in found or "header" in found) else None

"""A predictions file that survives being killed: whole lines only, a header that says whose answers these are."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.files import room_on_disk, write_bytes

log = logging.getLogger(__name__)

Row = dict[str, Any]


def line_of(row: Mapping[str, Any]) -> bytes:
    """One row as a line; equal rows give equal bytes."""
    return (json.dumps(row, ensure_ascii=False, sort_keys=True, default=str) + "\n").encode("utf-8", "backslashreplace")


class Journal:
    """Predictions of one data set, variant and condition.

    While they are produced, each rank appends to `<name>.rank<r>.part`, one unbuffered write per line. `finish` merges
    the parts into `<name>.jsonl` in the data's order and removes them. Rows that are there already are not asked again.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], rank: int = 0, resume: bool = True) -> None:
        self.path = Path(path)  # .../<name>.jsonl
        self.header: Row = {"header": dict(header)}
        self.part = self.path.with_suffix(f".rank{rank}.part")
        self.rows: dict[str, Row] = {}  # by id: what is done already
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume:
            for file in [self.path, *self._parts()]:
                self.rows.update(self._read(file))
        elif rank == 0:  # all of them: an earlier evaluation may have had more ranks
            for file in [self.path, *self._parts()]:
                file.unlink(missing_ok=True)
        self._handle: int | None = None

    @property
    def complete(self) -> bool:
        """Whether the merged file is there."""
        return self.path.is_file()

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}.rank*.part"))

    def _read(self, file: Path) -> dict[str, Row]:
        """Rows of a file up to the first line that is not whole. Raises CheckpointError if others wrote it."""
        if not file.is_file():
            return {}
        rows, _ = whole_lines(file.read_bytes())
        if not rows:
            return {}
        theirs, ours = rows[0].get("header", {}), self.header["header"]
        if theirs != ours:
            differs = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
            raise CheckpointError(
                f"{file} holds answers of another {' / '.join(differs) or 'evaluation'}; they cannot be continued: "
                "set run.resume=false to start them afresh, or give another run.run_id"
            )
        found = {row["id"]: row for row in rows[1:]}
        if len(found) < len(rows) - 1:
            raise CheckpointError(
                f"{file}: {len(rows) - 1 - len(found)} answers stand in it twice; set run.resume=false"
            )
        return found

    def open(self) -> None:
        """Cut the torn tail of this rank's part and make ready to append."""
        done = self.part.read_bytes() if self.part.is_file() else b""
        rows, whole = whole_lines(done)
        if whole < len(done):
            log.warning("%s: cut %d bytes of an unfinished line", self.part, len(done) - whole)
        self._handle = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._handle, whole)
        if not rows:
            self._append(self.header)

    def write(self, row: Row) -> None:
        """Append one row unless it is there already."""
        if row["id"] not in self.rows:
            self._append(row)
            self.rows[row["id"]] = row

    def _append(self, row: Row) -> None:
        assert self._handle is not None, "open() first"
        data = memoryview(line_of(row))
        with room_on_disk(self.part):
            while len(data):
                data = data[os.write(self._handle, data) :]

    def close(self) -> None:
        """Nothing more will be appended by this rank."""
        if self._handle is not None:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None

    def finish(self, order: Sequence[str]) -> None:
        """Merge all ranks' parts in this order of ids; called by one rank when all have closed theirs."""
        self._merge(order)
        missing = [name for name in order if name not in self.rows]
        if missing:
            raise CheckpointError(
                f"{self.path}: {len(missing)} of {len(order)} answers are missing, first {missing[0]!r}"
            )
        write_bytes(self.path, b"".join([line_of(self.header), *(line_of(self.rows[name]) for name in order)]))
        self.tidy()

    def _merge(self, order: Sequence[str]) -> None:
        """All parts' rows. Raises CheckpointError if two ranks answered one prompt, or one that was not asked."""
        owner: dict[str, Path] = {}
        wanted = set(order)
        for file in self._parts():
            for name, row in self._read(file).items():
                if name in owner:
                    raise CheckpointError(f"{self.path}: {name!r} stands in {owner[name].name} and in {file.name}")
                if name not in wanted:
                    raise CheckpointError(f"{file}: it answers {name!r}, which was not asked; set run.resume=false")
                owner[name], self.rows[name] = file, row

    def tidy(self) -> None:
        """Remove parts that the merged file has made useless; called by one rank."""
        for file in self._parts():
            file.unlink()

    def reread(self) -> list[Row]:
        """The rows of the merged file, in order."""
        return list(self._read(self.path).values())


def whole_lines(data: bytes) -> tuple[list[Row], int]:
    """(rows, bytes they take) of the longest beginning that is made of whole lines of JSON."""
    rows, end = [], 0
    while (cut := data.find(b"\n", end)) >= 0:
        try:
            row = json.loads(data[end:cut])
        except ValueError:
            break
        if not isinstance(row, dict) or ("id" not in row and "header" not in row):
            break
        rows.append(row)
        end = cut + 1
    return rows, end

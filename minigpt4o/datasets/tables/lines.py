"""Find where the rows of line-shaped files begin (.jsonl, .csv, .tsv), in bounded memory."""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.tables.cache import Arrays

BOM = b"\xef\xbb\xbf"
WIDE = (b"\xff\xfe", b"\xfe\xff")  # how files in UTF-16 begin
SHORT = 64  # bytes; a longer line is no line of blanks
CELL = 1 << 30  # letters of one cell: columns may hold whole pictures as text


class Places:
    """Where rows begin, and the number that a person would give each."""

    def __init__(self, first: int) -> None:
        self.starts, self.numbers, self.first = array("Q"), array("Q"), first

    def add(self, start: int, number: int) -> None:
        """Remember a row."""
        self.starts.append(start)
        self.numbers.append(number)

    def arrays(self, end: int, digest: bytes) -> Arrays:
        """`starts` (n + 1,), `digest`, `first`, and `numbers` (n,) unless they simply count from `first` on."""
        self.starts.append(end)
        found: Arrays = {
            "starts": np.frombuffer(self.starts, np.uint64),
            "digest": np.frombuffer(digest, np.uint8),
            "first": np.array([self.first]),
        }
        numbers = np.frombuffer(self.numbers, np.uint64)
        if len(numbers) and not (numbers[0] == self.first and numbers[-1] == self.first + len(numbers) - 1):
            found["numbers"] = numbers
        return found


def scan_jsonl(path: Path) -> Arrays:
    """The lines that are not blank."""
    places, digest, place = Places(1), hashlib.sha256(), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            start = place
            if not place:
                start = _after_bom(line, path)
            if line[start - place :].strip() and not (len(line) < SHORT and _blank(line)):
                places.add(start, number)
            place += len(line)
    return places.arrays(place, digest.digest())


def scan_table(path: Path, delimiter: str) -> Arrays:
    """The records of a table after its first, which names the columns; `head`: where that one lies."""
    csv.field_size_limit(CELL)
    with path.open("rb") as file:
        lines = _Lines(file, path)
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            named = any(reader)  # past blank lines, to the first record
            head, start = [lines.begin, lines.place], lines.place
            places = Places(reader.line_num + 1)
            for record in reader if named else ():
                if record:
                    places.add(start, reader.line_num)
                start = lines.place
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: cannot be read as a table: {error}") from error
    return places.arrays(lines.place, lines.digest.digest()) | {"head": np.array(head, np.uint64)}


class _Lines:
    """A file's lines for the csv module, with the byte that it has come to.

    They are told as Latin-1: delimiters and quotes are ASCII, and what is no UTF-8 must not end the search for rows.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.digest = hashlib.sha256()
        self._file, self._path = file, path
        self.begin = self.place = 0

    def __iter__(self) -> Iterator[str]:
        for raw in self._file:
            self.digest.update(raw)
            if not self.place:
                self.begin = self.place = _after_bom(raw, self._path)
                raw = raw[self.begin :]
            for line in raw.splitlines(keepends=True):  # at \n, \r\n and the \r of old files
                self.place += len(line)
                yield line.decode("latin-1")


def _after_bom(line: bytes, path: Path) -> int:
    if line.startswith(WIDE):
        raise DataError(f"{path}: byte 0 is not UTF-8 (it looks like UTF-16); save the file as UTF-8")
    return len(BOM) if line.startswith(BOM) else 0


def _blank(line: bytes) -> bool:
    """Whether the line holds nothing but blanks of any script."""
    return not line.decode("utf-8-sig", "replace").strip()

"""The rows of one annotation file: their places are known, each is read and parsed when it is asked for."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.descriptors import FILES
from minigpt4o.datasets.tables.cache import Arrays, derived
from minigpt4o.datasets.tables.json_rows import JsonRows
from minigpt4o.datasets.tables.lines import CELL, scan_jsonl, scan_table
from minigpt4o.datasets.tables.row import Row
from minigpt4o.datasets.tables.store import Picked, Rows

KEY_COLUMN = "key"  # column that holds the key when the rows are the values of a mapping
PIECE = 1 << 18  # bytes read at once when all rows are looked through
KEPT_BYTES = 1 << 20  # of a file; a smaller one is looked through again faster than its index is kept
TABLES = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".ndjson")


def file_rows(path: Path, list_key: str = "") -> tuple[Rows, bytes]:
    """The rows of a .json, .jsonl, .csv or .tsv file, and the SHA-256 of what it holds. Raises DataError."""
    try:
        stat = path.stat()
        arrays = derived(
            ("file", path.resolve(), list_key),
            (stat.st_size, stat.st_mtime_ns),
            lambda: _scan(path, list_key),
            stat.st_size >= KEPT_BYTES,
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); annotations must name a file") from error
    kind = {".csv": TableFile, ".tsv": TableFile, ".json": JsonFile}.get(path.suffix.lower(), LinesFile)
    rows: Rows = kind(path, arrays, stat)
    if "order" in arrays:
        rows = Picked(rows, arrays["order"])
    return rows, arrays["digest"].tobytes()


def _scan(path: Path, list_key: str) -> Arrays:
    suffix = path.suffix.lower()
    if suffix in LINES:
        return scan_jsonl(path)
    return scan_table(path, TABLES[suffix]) if suffix in TABLES else JsonRows(path, list_key).arrays()


class StoredFile(Rows):
    """Rows that lie one after the other in a file."""

    def __init__(self, path: Path, arrays: Arrays, stat: os.stat_result) -> None:
        super().__init__()
        self.file = str(path)
        self._starts, self._numbers = arrays["starts"], arrays.get("numbers")
        self._first = int(arrays["first"][0]) if "first" in arrays else 1
        self._stamp, self._bytes, self._looked = stat.st_mtime_ns, stat.st_size, 0

    def __len__(self) -> int:
        return len(self._starts) - 1

    def size(self, index: int) -> int:
        return int(self._starts[index + 1] - self._starts[index])

    def make(self, index: int) -> Row:
        start = int(self._starts[index])
        return self._parsed_at(index, start, self.read(start, int(self._starts[index + 1]) - start))

    def __iter__(self) -> Iterator[Row]:
        """All rows by a few long reads."""
        index = 0
        while index < len(self):
            begin = int(self._starts[index])
            end = int(np.searchsorted(self._starts, np.uint64(begin + PIECE), side="right")) - 1
            places = self._starts[index : max(end, index + 1) + 1].tolist()
            raw = self.read(begin, places[-1] - begin)
            for start, stop in pairwise(places):
                yield self._parsed_at(index, start, raw[start - begin : stop - begin])
                index += 1

    def _parsed_at(self, index: int, start: int, raw: bytes) -> Row:
        number = self._first + index if self._numbers is None else int(self._numbers[index])
        try:
            return self.parse(raw, number)
        except UnicodeDecodeError as error:
            problem = f"byte {start + error.start} of the file is not UTF-8; save the file as UTF-8"
            return Row({}, self.file, number, problem, "bad_text")

    def parse(self, raw: bytes, number: int) -> Row:
        """The row that these bytes say."""
        raise NotImplementedError

    def read(self, start: int, size: int) -> bytes:
        """Bytes of the file. Raises DataError if it is no longer the file that was indexed, OSError if reading fails.

        What a file system refuses may pass: a loader tries again, see `datasets.bad.attempt`.
        """
        if self._looked != os.getpid():  # once for each process, which opens the file anew
            stat = os.stat(self.file)
            if (stat.st_mtime_ns, stat.st_size) != (self._stamp, self._bytes):
                raise DataError(f"{self.file}: was changed while it was in use; start again")
            self._looked = os.getpid()
        return FILES.read(self.file, start, size, self._stamp)


class LinesFile(StoredFile):
    """One JSON object in each line."""

    def parse(self, raw: bytes, number: int) -> Row:
        text = raw.decode("utf-8").partition("\n")[0]
        return row_of_json(text, self.file, number)


class JsonFile(StoredFile):
    """The elements of a JSON list, or the objects of an object with their keys as column `key`."""

    def __init__(self, path: Path, arrays: Arrays, stat: os.stat_result) -> None:
        super().__init__(path, arrays, stat)
        self._mapping = bool(arrays["mapping"][0])

    def parse(self, raw: bytes, number: int) -> Row:
        text = raw.decode("utf-8").rstrip(" \t\n\r").removesuffix(",")
        if not self._mapping:
            return row_of_json(text, self.file, number)
        ((key, values),) = json.loads("{" + text + "}").items()
        return Row({KEY_COLUMN: key, **values}, self.file, number)


class TableFile(StoredFile):
    """The records of a table whose first names the columns."""

    def __init__(self, path: Path, arrays: Arrays, stat: os.stat_result) -> None:
        super().__init__(path, arrays, stat)
        self._delimiter = TABLES[path.suffix.lower()]
        start, end = (int(place) for place in arrays["head"])
        try:
            self._head = self._cells(self.read(start, end - start)) if end > start else []
        except UnicodeDecodeError as error:
            place = start + error.start
            raise DataError(f"{path}: byte {place} is not UTF-8; save the file as UTF-8") from None

    def parse(self, raw: bytes, number: int) -> Row:
        cells, problem = self._cells(raw), ""
        if len(cells) > len(self._head):
            problem = f"has more cells than columns; put texts that hold {self._delimiter!r} in quotes"
        return Row(dict(zip(self._head, cells, strict=False)), self.file, number, problem)

    def _cells(self, raw: bytes) -> list[str]:
        csv.field_size_limit(CELL)
        lines = io.StringIO(raw.decode("utf-8"), newline="")
        return next((cells for cells in csv.reader(lines, delimiter=self._delimiter) if cells), [])


def row_of_json(text: str, file: str, number: int) -> Row:
    """The row that a text says; if it says none, why."""
    try:
        values: Any = json.loads(text)
    except json.JSONDecodeError as error:
        return Row({}, file, number, f"not valid JSON at column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets nested thousands deep
        return Row({}, file, number, f"not valid JSON: {str(error).partition(';')[0]}")
    if isinstance(values, dict):
        return Row(values, file, number)
    return Row({}, file, number, f"is a {type(values).__name__}, not an object with named fields")

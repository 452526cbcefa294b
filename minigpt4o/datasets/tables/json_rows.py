"""Find where the elements of a JSON list begin, in bounded memory, and tell faults as `json.loads` tells them.

The file is looked at as Latin-1, one letter for each byte: JSON's own signs are ASCII, so places in the text are places
in the file. Every value is parsed by the json module and dropped; what does not fit in a window is gone into.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.datasets.tables.cache import Arrays
from minigpt4o.datasets.tables.store import hash64

# Where the list of rows usually lies when a JSON file is not itself a list.
LIST_KEYS = ("annotations", "data", "questions", "items", "rows", "annotation", "images")
PIECE = 1 << 20  # bytes read at once
WINDOW = 4 << 20  # a list or object longer than this is gone into instead of being parsed whole
NAMED = 40  # keys that an error tells
EDGE = 16  # letters at a window's end that may be the beginning of a longer word (`-Infinity`, `\ud83d\ude00`)
_BLANKS = re.compile(r"[ \t\n\r]*")


class Found:
    """Places of the elements of one list, or of the keys of an object of objects; then of its end."""

    def __init__(self, keys: bool = False) -> None:
        self.starts = array("Q")
        self.hashes = array("Q") if keys else None  # of the keys

    def order(self) -> np.ndarray | None:
        """The elements without those whose key comes again: the last value counts, in the first one's place."""
        hashes = np.frombuffer(self.hashes or array("Q"), np.uint64)
        different, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        if len(different) == len(hashes):
            return None
        last = np.zeros(len(different), np.int64)
        last[which] = np.arange(len(hashes))
        return last[np.argsort(first)]


class JsonRows:
    """One pass over a file."""

    def __init__(self, path: Path, list_key: str) -> None:
        self.path, self.list_key = path, list_key
        self.digest = hashlib.sha256()
        self._scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]
        self._text, self._at, self._base, self._ended = "", 0, 0, False
        self._read, self._bom = 0, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def arrays(self) -> Arrays:
        """`starts` (n + 1,) bytes; `mapping` whether they are keys; `order` (n,) if a key came twice; `digest`."""
        with self.path.open("rb") as self._file:
            self._more()
            if self._text.startswith("\xef\xbb\xbf"):
                self._at = self._bom = 3
            found, why = self._target(self.list_key)
            if self._peek():
                raise self._broken("Extra data", self._at)
        if found is None:
            raise DataError(f"{self.path}: {why}")
        order = found.order()
        return {
            "starts": np.frombuffer(found.starts, np.uint64),
            "mapping": np.array([found.hashes is not None]),
            "digest": np.frombuffer(self.digest.digest(), np.uint8),
        } | ({} if order is None else {"order": order})

    # --- which list

    def _target(self, rest: str) -> tuple[Found | None, str]:
        """The list at a dotted path: a key as it is written, or step by step."""
        if not rest:
            return self._list_of_rows()
        word, _, after = rest.partition(".")
        sign = self._peek()
        result: tuple[Found | None, str] | None = None
        literal = False
        names: list[str] = []
        if sign == "{":
            for key in self._keys():
                names += [key] * (key not in names and len(names) < NAMED)
                if key == rest:
                    result, literal = self._list_of_rows(), True
                elif key == word and not literal:
                    result = self._target(after)
                else:
                    self._skip()
        elif sign == "[":
            for number, _ in enumerate(self._elements()):
                if str(number) == word:
                    result = self._target(after)
                else:
                    self._skip()
        else:
            self._skip()
        held = ", ".join(names) if sign == "{" else "a list, which needs no `rows`"
        return result or (None, f"there is no {self.list_key!r} (rows); the file holds: {held}")

    def _list_of_rows(self) -> tuple[Found | None, str]:
        """The list that begins here, or is one of LIST_KEYS here, or the objects of the object here."""
        sign = self._peek()
        if sign == "[":
            return self._record(), ""
        if sign != "{":
            return None, f"holds a single {type(self._value()).__name__}, not a list of rows"
        lists: dict[str, Found] = {}
        mapping = Found(keys=True)
        assert mapping.hashes is not None
        names: list[str] = []
        objects = True
        end = 0
        for key in self._keys():
            names += [key] * (key not in names and len(names) < NAMED)
            value = self._peek()
            objects = objects and value == "{"
            if objects:
                mapping.starts.append(self._key_start)
                mapping.hashes.append(hash64(key))
            lists.pop(key, None)
            if value == "[" and key in LIST_KEYS:
                lists[key] = self._record()
            else:
                self._skip()
            end = self._base + self._at
        for key in LIST_KEYS:
            if key in lists:
                return lists[key], ""
        if names and objects:
            mapping.starts.append(end)
            return mapping, ""
        return None, f"no list of rows found; the file holds: {', '.join(names)}. Name it with `rows:`"

    def _record(self) -> Found:
        found = Found()
        for start in self._elements():
            found.starts.append(start)
            self._skip()
        found.starts.append(self._base + self._at - 1)
        return found

    # --- the grammar

    def _elements(self) -> Iterator[int]:
        """Where each element of the list here begins; the caller must move past it before asking on."""
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            self._peek()
            yield self._base + self._at
            if self._closed("]"):
                return

    def _keys(self) -> Iterator[str]:
        """The keys of the object here; the caller must move past each value."""
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise self._broken("Expecting property name enclosed in double quotes", self._at)
            start = self._base + self._at
            key = self._value().encode("latin-1").decode("utf-8")
            if self._peek() != ":":
                raise self._broken("Expecting ':' delimiter", self._at)
            self._at += 1
            self._peek()
            self._key_start = start
            yield key
            if self._closed("}"):
                return

    def _closed(self, bracket: str) -> bool:
        """Past a comma, or past the closing bracket, which is told."""
        sign = self._peek()
        if sign not in (",", bracket) or not sign:
            raise self._broken("Expecting ',' delimiter", self._at)
        self._at += 1
        return sign == bracket

    def _skip(self) -> None:
        """Past the value here. What is longer than a window is gone into."""
        sign = self._peek()
        if self._value(give_up=sign in "[{" and sign != "") is not _TOO_LONG:
            return
        for _ in self._elements() if sign == "[" else self._keys():
            self._skip()

    def _value(self, give_up: bool = False) -> Any:
        """The value here, parsed. Reads on while it is cut by the window's end, or gives up when it is too long."""
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except StopIteration as stop:
                message, place = "Expecting value", int(stop.value)
            except json.JSONDecodeError as error:
                message, place = error.msg, error.pos
            except RecursionError:
                raise self._broken("nested too deeply", self._at) from None
            except ValueError as error:  # a whole number of thousands of digits
                raise self._broken(str(error).partition(";")[0], self._at) from None
            else:
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
                message, place = "", end
            cut = place + EDGE >= len(self._text) or message.startswith("Unterminated string")
            if self._ended or not cut:
                raise self._broken(message, place)
            if give_up and len(self._text) - self._at > WINDOW:
                return _TOO_LONG
            self._more()

    def _peek(self) -> str:
        """The next sign that is no blank; "" at the end of the file."""
        while True:
            blank = _BLANKS.match(self._text, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    # --- the file

    def _more(self) -> None:
        """Drop what was passed and read on, more the longer the value at hand is."""
        raw = self._file.read(max(PIECE, len(self._text) - self._at))
        self.digest.update(raw)
        held = len(self._decoder.getstate()[0])
        try:
            if held or not raw or not raw.isascii():
                self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            byte = self._read - held + error.start
            raise DataError(f"{self.path}: byte {byte} is not UTF-8; save the file as UTF-8") from None
        self._read += len(raw)
        self._base += self._at
        self._text, self._at, self._ended = self._text[self._at :] + raw.decode("latin-1"), 0, not raw

    def _broken(self, message: str, place: int) -> DataError:
        line, column = line_and_column(self.path, self._base + place, self._bom)
        mend = " (one object per line? then name it .jsonl)" if message == "Extra data" else ""
        return DataError(f"{self.path}:{line}:{column}: not valid JSON: {message}{mend}")

    _file: BinaryIO
    _key_start = 0


_TOO_LONG = object()


def line_and_column(path: Path, byte: int, start: int = 0) -> tuple[int, int]:
    """Line and letter in it, both from 1, of a byte; letters are counted from byte `start` on."""
    line, column = 1, 1
    with path.open("rb") as file:
        file.seek(start)
        left = byte - start
        while left > 0:
            raw = file.read(min(PIECE, left))
            if not raw:
                break
            left -= len(raw)
            before, newline, last = raw.rpartition(b"\n")
            if newline:
                line, column = line + before.count(b"\n") + 1, 1
            letters = np.frombuffer(last if newline else raw, np.uint8)
            column += int(np.count_nonzero((letters & 0xC0) != 0x80))
    return line, column

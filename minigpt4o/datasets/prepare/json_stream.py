"""Read a JSON list element by element: memory holds one piece of the file, however many gigabytes it has."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError

PIECE = 1 << 20  # bytes read at once
LONGEST = 64 << 20  # characters of one element; more is no element but damage
_BETWEEN = re.compile(r"[\s,]*")


class BrokenJson(DataError):
    """The list makes no sense from a certain byte on; what came before it was whole."""

    def __init__(self, path: Path, byte: int, count: int, what: str) -> None:
        super().__init__(f"{path}: {what} at byte {byte:,}, after {count:,} whole element(s); fetch the file again")
        self.byte, self.count = byte, count


class JsonList:
    """The elements of a file that holds one JSON list, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.byte = 0  # where the text still to be read begins, for errors and progress
        self.count = 0
        self._text, self._at, self._ended = "", 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")

    def __iter__(self) -> Iterator[Any]:
        """Raises BrokenJson after the last whole element if the file is damaged or cut off."""
        scan = json.JSONDecoder().raw_decode
        with self.path.open("rb") as file:
            if not self._open(file):
                raise BrokenJson(self.path, 0, 0, "no JSON list (it must begin with `[`)")
            while True:
                self._skip(file)
                if self._at >= len(self._text):
                    raise BrokenJson(self.path, self._place(), self.count, "the file is cut off")
                if self._text[self._at] == "]":
                    return
                try:
                    value, end = scan(self._text, self._at)
                except json.JSONDecodeError as error:
                    self._more_or_raise(file, error)
                    continue
                if end >= len(self._text) and not self._ended:  # a number may go on in the next piece
                    self._read(file)
                    continue
                self._at = end
                self.count += 1
                yield value

    def _open(self, file: Any) -> bool:
        self._read(file)
        self._skip(file)
        if self._text[self._at : self._at + 1] != "[":
            return False
        self._at += 1
        return True

    def _skip(self, file: Any) -> None:
        """To the next element or the end of the list."""
        while True:
            found = _BETWEEN.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text) or self._ended:
                return
            self._read(file)

    def _more_or_raise(self, file: Any, error: json.JSONDecodeError) -> None:
        held = len(self._text) - self._at
        if self._ended:
            raise BrokenJson(self.path, self._place(), self.count, "the file is cut off, or damaged,") from error
        if held > LONGEST:
            raise BrokenJson(self.path, self._place(), self.count, f"no element can be read ({error.msg})") from error
        self._read(file)

    def _read(self, file: Any) -> None:
        """Drop what was used; add the next piece, a larger one the longer the element is."""
        rest = self._text[self._at :]
        raw = file.read(max(PIECE, len(rest)))
        self._ended = not raw
        self.byte = self._place()
        self._text, self._at = rest + self._decoder.decode(raw, final=not raw), 0

    def _place(self) -> int:
        return self.byte + len(self._text[: self._at].encode("utf-8", "surrogatepass"))

"""Sequences of rows that hold no rows: each is made when it is asked for, so a million cost a few bytes apiece."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import overload

import numpy as np

from minigpt4o.datasets.tables.cache import KEPT_FROM, derived
from minigpt4o.datasets.tables.row import Row

REMEMBERED = 32  # rows that a sequence keeps parsed: a sample asks for its row several times in a row


class Rows(Sequence[Row]):
    """Rows by number. Sub-classes say how many there are, how one is made and how many bytes it has."""

    def __init__(self) -> None:
        self._parsed: dict[int, Row] = {}

    @abstractmethod
    def make(self, index: int) -> Row:
        """The row at an index that exists."""

    @abstractmethod
    def size(self, index: int) -> int:
        """Bytes of the row where it is stored, found without reading it."""

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self._parsed.get(index)
        if row is None:
            row = self.make(index)
            if len(self._parsed) >= REMEMBERED:
                self._parsed.clear()
            self._parsed[index] = row
        return row

    def __iter__(self) -> Iterator[Row]:
        return (self.make(index) for index in range(len(self)))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_parsed": {}}


class Listed(Rows):
    """Rows that lie in memory (a pickle's, a handful made by hand)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def make(self, index: int) -> Row:
        return self._rows[index]

    def size(self, index: int) -> int:
        return len(str(self._rows[index].values))


class Chained(Rows):
    """The rows of several sources one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        super().__init__()
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._parts else 0

    def __iter__(self) -> Iterator[Row]:
        return chain.from_iterable(self._parts)

    def _place(self, index: int) -> tuple[Rows, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[number], index - (int(self._ends[number - 1]) if number else 0)

    def make(self, index: int) -> Row:
        part, inside = self._place(index)
        return part.make(inside)

    def size(self, index: int) -> int:
        part, inside = self._place(index)
        return part.size(inside)


class Picked(Rows):
    """Some rows of another sequence, by their numbers there."""

    def __init__(self, rows: Rows, numbers: np.ndarray) -> None:
        super().__init__()
        self._rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def make(self, index: int) -> Row:
        return self._rows.make(int(self.numbers[index]))

    def size(self, index: int) -> int:
        return self._rows.size(int(self.numbers[index]))


class Changed(Rows):
    """The rows of another sequence, each sent through a function when it is asked for."""

    def __init__(self, rows: Rows, change: Callable[[Row], Row]) -> None:
        super().__init__()
        self._rows, self._change = rows, change

    def __len__(self) -> int:
        return len(self._rows)

    def make(self, index: int) -> Row:
        return self._change(self._rows.make(index))

    def __iter__(self) -> Iterator[Row]:
        return map(self._change, self._rows)

    def size(self, index: int) -> int:
        return self._rows.size(index)


class Parted(Rows):
    """Several rows out of each row of another sequence: regions of a picture, questions about a book cover."""

    def __init__(self, rows: Rows, counts: np.ndarray, part: Callable[[Row, int], Row]) -> None:
        """`counts`: how many rows each becomes; `part` makes the n-th of them."""
        super().__init__()
        self._rows, self._part, self._counts = rows, part, counts
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _place(self, index: int) -> tuple[int, int]:
        whole = int(np.searchsorted(self._ends, index, side="right"))
        return whole, index - (int(self._ends[whole - 1]) if whole else 0)

    def __iter__(self) -> Iterator[Row]:
        for row, count in zip(self._rows, self._counts, strict=True):
            yield from (self._part(row, place) for place in range(int(count)))

    def make(self, index: int) -> Row:
        whole, place = self._place(index)
        return self._part(self._rows[whole], place)

    def size(self, index: int) -> int:
        whole, _ = self._place(index)
        return self._rows.size(whole) // max(1, int(self._counts[whole]))


def stored(rows: Sequence[Row]) -> Rows:
    """The rows as a `Rows`, whatever sequence they come in."""
    return rows if isinstance(rows, Rows) else Listed(rows)


def where(rows: Rows, digest: str, wanted: Callable[[Row], bool], why: str) -> Rows:
    """The rows that are wanted. `why` names the choice and all it depends on besides the rows."""

    def make() -> dict[str, np.ndarray]:
        return {"numbers": numbers(i for i, row in enumerate(rows) if wanted(row))}

    return Picked(rows, derived(("where", why, digest), (), make, len(rows) >= KEPT_FROM)["numbers"])


def numbers(found: Iterator[int]) -> np.ndarray:
    """(n,) int64 of numbers that are told one by one, 8 bytes for each even while they come."""
    return np.frombuffer(array("q", found), np.int64)


def hash64(text: str) -> int:
    """A number that tells texts apart: of a million, two agree by chance once in 30 million data sets."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class KeyIndex:
    """Find rows by a key without holding keys: their hashes sorted, 16 bytes for each row."""

    def __init__(self, rows: Rows, digest: str, key: Callable[[Row], str | None], what: str) -> None:
        """`digest` and `what` name the rows and the key. A row whose key is None cannot be found.

        Of equal keys the last row counts.
        """
        self._rows, self._key = rows, key
        found = derived(("key", what, digest), (), self._sorted, len(rows) >= KEPT_FROM)
        self._hashes, self._numbers = found["hashes"], found["numbers"]

    def find(self, word: str) -> Row | None:
        """The last row with the key."""
        wanted = np.uint64(hash64(word))
        place = int(np.searchsorted(self._hashes, wanted, side="right")) - 1
        while place >= 0 and self._hashes[place] == wanted:
            row = self._rows[int(self._numbers[place])]
            if self._key(row) == word:
                return row
            place -= 1
        return None

    def _sorted(self) -> dict[str, np.ndarray]:
        hashes, places = array("Q"), array("q")
        for number, row in enumerate(self._rows):
            word = self._key(row)
            if word is not None:
                hashes.append(hash64(word))
                places.append(number)
        known = np.frombuffer(hashes, np.uint64)
        order = np.argsort(known, kind="stable")
        return {"hashes": known[order], "numbers": np.frombuffer(places, np.int64)[order]}

"""Rows laid together and named, as arrays of numbers: which rows make a sample, and which of equal ids it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np

from minigpt4o.datasets.tables.row import Row
from minigpt4o.datasets.tables.store import Picked, Rows


class Groups(Sequence[list[Row]]):
    """Lists of rows, mostly of one row each; a list is made when it is asked for."""

    def __init__(self, rows: Rows, numbers: np.ndarray, starts: np.ndarray | None = None) -> None:
        """`numbers`: rows in the order of their groups; `starts` (groups + 1,) in it, None if each is its own group."""
        self._rows, self._numbers, self._starts = rows, numbers, starts

    def __len__(self) -> int:
        return len(self._numbers) if self._starts is None else len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> list[Row]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[Row]]: ...

    def __getitem__(self, index: int | slice) -> list[Row] | list[list[Row]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return [self._rows[int(number)] for number in self.members(index)]

    def __iter__(self) -> Iterator[list[Row]]:
        return (self[index] for index in range(len(self)))

    def members(self, index: int) -> np.ndarray:
        """The numbers of a group's rows."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._starts is None:
            return self._numbers[index : index + 1]
        return self._numbers[int(self._starts[index]) : int(self._starts[index + 1])]

    def first(self, index: int) -> Row:
        """The first row of a group."""
        return self._rows[int(self.members(index)[0])]

    def firsts(self) -> Iterator[Row]:
        """The first row of every group, in order."""
        numbers = self._numbers if self._starts is None else self._numbers[self._starts[:-1]]
        whole = len(numbers) == len(self._rows) and np.array_equal(numbers, np.arange(len(numbers)))
        return iter(self._rows if whole else Picked(self._rows, numbers))

    def size(self, index: int) -> int:
        """Bytes of a group's rows where they are stored."""
        return sum(self._rows.size(int(number)) for number in self.members(index))


class Ids(Sequence[str]):
    """The groups' ids, made when they are asked for; `#2`, `#3` after those that came before."""

    def __init__(self, groups: Groups, name: Callable[[Row], str], times: np.ndarray | None) -> None:
        """`times`: how often each id was seen up to its place, itself included; None if all are different."""
        self._groups, self._name, self._times = groups, name, times

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._told(self._groups.first(index), index)

    def __iter__(self) -> Iterator[str]:
        return (self._told(row, index) for index, row in enumerate(self._groups.firsts()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none

    def _told(self, row: Row, index: int) -> str:
        word = self._name(row)
        times = 1 if self._times is None else int(self._times[index])
        return word if times == 1 else f"{word}#{times}"


def times_seen(hashes: np.ndarray) -> np.ndarray | None:
    """(n,) how often each value was seen up to its place, itself included; None if all are different."""
    different, which = np.unique(hashes, return_inverse=True)
    if len(different) == len(hashes):
        return None
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))
    begins = np.concatenate([[0], ends[:-1]])
    times = np.empty(len(hashes), np.uint32)
    times[order] = np.arange(len(hashes)) - begins[which[order]] + 1
    return times


def laid_together(keys: np.ndarray) -> np.ndarray:
    """(n,) number of each row's group; groups are numbered as they first appear."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[which]

"""Which samples of a store a split takes, by folds and thinned, and which of them have a name that came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

import numpy as np

from minigpt4o.datasets.shards.store import ShardStore
from minigpt4o.datasets.splits import SplitConfig, chosen, fold_of

T = TypeVar("T")


def choose(
    store: ShardStore, config: SplitConfig, split: str, name: str, fold_key: Callable[[int], object] | None
) -> np.ndarray | None:
    """(N,) numbers of the samples of a split in rising order; None stands for all of them.

    `fold_key(sample)` is what must not be divided between splits; None: the sample's key. Raises DataError for none.
    """
    if config.folds < 2 and len(store) and not config.max_samples:
        return None
    key = fold_key or (lambda sample: store.group(sample).key)

    def folds() -> np.ndarray:
        if fold_key is None:
            return (store.hashes() % np.uint64(config.folds)).astype(np.int64)
        return np.fromiter((fold_of(key(i), config.folds) for i in range(len(store))), np.int64, len(store))

    return chosen(len(store), folds, lambda: {str(key(i)) for i in range(len(store))}, config, split, name)


def occurrences(hashes: np.ndarray) -> np.ndarray | None:
    """(N,) how often each hash was met up to and with its place; None if none comes twice."""
    order = np.argsort(hashes, kind="stable")
    sorted_hashes = hashes[order]
    new = np.ones(len(hashes), bool)
    new[1:] = sorted_hashes[1:] != sorted_hashes[:-1]
    if new.all():
        return None
    places = np.arange(len(hashes))
    found = np.empty(len(hashes), np.int32)
    found[order] = places - np.maximum.accumulate(np.where(new, places, 0)) + 1
    return found


class View(Sequence[T], Generic[T]):
    """A sequence whose elements are made when they are asked for."""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        place = index + self._length if index < 0 else index
        if not 0 <= place < self._length:
            raise IndexError(f"{index} is outside of {self._length} elements")
        return self._make(place)

    def __iter__(self) -> Iterator[T]:
        return map(self._make, range(self._length))

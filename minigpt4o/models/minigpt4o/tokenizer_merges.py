"""Learn the merges of a byte-pair encoding from counted words: the same counts always give the same merges."""

from __future__ import annotations

import heapq
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

Pair = tuple[int, int]


def learn_merges(
    words: Iterable[tuple[str, int]], alphabet: Sequence[str], limit: int, min_count: int = 2
) -> tuple[list[str], list[tuple[str, str]]]:
    """The tokens (the alphabet first) and the merges that make them, in the order in which they apply.

    `words` are (letters, how often); every letter stands in `alphabet`. Learning ends at `limit` tokens or when no
    pair is seen `min_count` times. The commonest pair is merged first; of equals the one with the older tokens. Time
    and memory go with the number of different words, not with the length of the text.
    """
    tokens = list(alphabet)
    ids = {token: i for i, token in enumerate(tokens)}
    table = _PairTable(words, ids)
    merges = []
    while len(tokens) < limit and (pair := table.commonest(min_count)):
        left, right = pair
        merges.append((tokens[left], tokens[right]))
        token = tokens[left] + tokens[right]
        if token not in ids:  # two ways of cutting may lead to one token
            ids[token] = len(tokens)
            tokens.append(token)
        table.merge(pair, ids[token])
    return tokens, merges


class _PairTable:
    """Every word as token ids, how often each neighbouring pair stands in the text, and in which words."""

    def __init__(self, words: Iterable[tuple[str, int]], ids: dict[str, int]) -> None:
        self.words: list[list[int]] = []
        self.counts: list[int] = []
        self.seen: defaultdict[Pair, int] = defaultdict(int)
        self.where: defaultdict[Pair, array[int]] = defaultdict(lambda: array("I"))
        for letters, count in words:
            word = [ids[letter] for letter in letters]
            if len(word) < 2:
                continue
            for pair in pairwise(word):
                self.seen[pair] += count
                self.where[pair].append(len(self.words))
            self.words.append(word)
            self.counts.append(count)
        # Counts in the heap may be out of date, never too small: they are checked when they come up.
        self.heap = [(-count, pair) for pair, count in self.seen.items()]
        heapq.heapify(self.heap)

    def commonest(self, min_count: int) -> Pair | None:
        """The pair to merge next; None if all that are left are too rare."""
        while self.heap:
            negative, pair = heapq.heappop(self.heap)
            count = self.seen[pair]
            if count != -negative:
                if count > 0:
                    heapq.heappush(self.heap, (-count, pair))
            elif count < max(min_count, 1):
                return None
            else:
                return pair
        return None

    def merge(self, pair: Pair, new: int) -> None:
        """Write `new` for the pair in all words, and count the pairs that go and come."""
        changes: defaultdict[Pair, int] = defaultdict(int)
        for index in self.where.pop(pair):
            self._merge_in(index, pair, new, changes)
        del self.seen[pair]
        for changed, change in changes.items():
            self.seen[changed] += change
            if change > 0:
                heapq.heappush(self.heap, (-self.seen[changed], changed))

    def _merge_in(self, index: int, pair: Pair, new: int, changes: defaultdict[Pair, int]) -> None:
        word, count, (left, right) = self.words[index], self.counts[index], pair
        i = 0
        while i < len(word) - 1:
            if word[i] == left and word[i + 1] == right:
                if i:
                    before = word[i - 1]
                    changes[before, left] -= count
                    changes[before, new] += count
                    self.where[before, new].append(index)
                if i + 2 < len(word):
                    after = word[i + 2]
                    changes[right, after] -= count
                    changes[new, after] += count
                    self.where[new, after].append(index)
                word[i : i + 2] = [new]
            i += 1

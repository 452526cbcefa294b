"""Edit distance: the least number of insertions, deletions and replacements that make one sequence the other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Levenshtein distance of two sequences (letters of texts, words of lists), exact for any length.

    A whole column of the table is held in the bits of one integer (Myers 1999, Hyyro 2003).
    """
    if len(first) < len(second):
        first, second = second, first
    if not second:
        return len(first)
    places: dict[Hashable, int] = {}
    for place, item in enumerate(second):
        places[item] = places.get(item, 0) | 1 << place
    size = len(second)
    full, last = (1 << size) - 1, 1 << (size - 1)
    up, down, total = full, 0, size
    for item in first:
        equal = places.get(item, 0)
        same = equal | down
        kept = (((equal & up) + up) ^ up) | equal
        rises = down | ~(kept | up) & full
        falls = up & kept
        if rises & last:
            total += 1
        elif falls & last:
            total -= 1
        rises = (rises << 1 | 1) & full
        falls = falls << 1 & full
        up = falls | ~(same | rises) & full
        down = rises & same
    return total

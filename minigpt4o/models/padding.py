"""Spend no arithmetic on padding: rows of like length go through the language model together."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

MAX_GROUPS = 4  # more groups save little more padding and make the matrix products small
MIN_SAVING = 0.05  # share of the positions that splitting must save to be worth another pass
MIN_TOKENS = 512  # a smaller group no longer keeps a core busy


def padded_right(mask: Tensor) -> bool:
    """Whether every row of the (B, T) mask is ones, then zeros."""
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


def length_groups(lengths: Tensor) -> tuple[Tensor, list[tuple[slice, int]]]:
    """An order of the rows by length, and groups of it: (slice of the order, longest length in it).

    Cut where most padding is saved, one cut at a time.
    """
    ordered, order = torch.sort(lengths.cpu(), stable=True)
    sizes: list[int] = ordered.tolist()
    cuts = [0, len(sizes)]
    while len(cuts) <= MAX_GROUPS:
        saving, at = max(_best_cut(sizes, start, end) for start, end in pairwise(cuts))
        if saving < MIN_SAVING * len(sizes) * sizes[-1]:
            break
        cuts = sorted([*cuts, at])
    groups = [(slice(start, end), max(sizes[end - 1], 1)) for start, end in pairwise(cuts)]
    return order.to(lengths.device), groups


def _best_cut(sizes: list[int], start: int, end: int) -> tuple[int, int]:
    """(positions saved, where) of the best cut of one group."""
    longest = sizes[end - 1]
    found = [
        ((at - start) * (longest - sizes[at - 1]), at)
        for at in range(start + 1, end)
        if sizes[at - 1] * (at - start) >= MIN_TOKENS and longest * (end - at) >= MIN_TOKENS
    ]
    return max(found, default=(0, start))

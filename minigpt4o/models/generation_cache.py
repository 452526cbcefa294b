"""Key-value caches of rows that decode together: put side by side, cut to some rows, shortened on the left or right."""

# B rows, H heads, T columns (a column is a place of every row, the newest stands last), C width of a head,
# W columns that a sliding window sees

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def joinable(cache: Any) -> bool:
    """Whether every layer holds plain keys and values (B, H, T, C), of the last W - 1 columns or of all.

    Only then can rows of different lengths be put side by side. Rows stand at the right: what is missing on the left
    is filled up and must be hidden by the mask.
    """
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    known = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    return all(type(layer) in known for layer in cache.layers)


def join(cache: Any, other: Any) -> None:
    """The rows of `other` below those of `cache`, in place; both must be `joinable`."""
    columns = max(cache.get_seq_length(), other.get_seq_length())
    for mine, new in zip(cache.layers, other.layers, strict=True):
        if mine.keys is None:  # reads the keys and values of another layer
            continue
        want = _held(mine, columns)
        for name in ("keys", "values"):
            both = [_widened(getattr(layer, name), want) for layer in (mine, new)]
            setattr(mine, name, torch.cat(both))
        if hasattr(mine, "cumulative_length"):
            mine.cumulative_length = columns


def drop_left(cache: Any, count: int) -> None:
    """Leave out the `count` oldest columns, in place: they must be padding in every row."""
    _shorten(cache, cache.get_seq_length() - count)


def row_of(cache: Any, row: int, length: int) -> Any:
    """A cache of its own with the newest `length` columns of one row; `cache` is left as it is."""
    alone = _copied(cache)
    for layer in _full(alone):
        layer.keys, layer.values = layer.keys[row : row + 1], layer.values[row : row + 1]
    _shorten(alone, length)
    for layer in _full(alone):  # not a view, which would keep all the rows in memory
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    return alone


def can_rewind(cache: Any, length: int) -> bool:
    """Whether the newest columns can be left out so that `length` remain: a sliding window has forgotten the oldest."""
    now = cache.get_seq_length()
    return length == now or all(_held(layer, now) == now for layer in _full(cache))


def rewind(cache: Any, length: int) -> None:
    """Leave out the newest columns, in place, so that `length` remain. Ask `can_rewind` before."""
    for layer in _full(cache) if length < cache.get_seq_length() else ():
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = length


def bytes_of(cache: Any) -> int:
    """Memory of its keys and values."""
    return sum(t.numel() * t.element_size() for layer in _full(cache) for t in (layer.keys, layer.values))


def _full(cache: Any) -> Iterator[Any]:
    return (layer for layer in cache.layers if layer.keys is not None)


def _copied(cache: Any) -> Any:
    """Another cache with the same tensors."""
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    return other


def _held(layer: Any, columns: int) -> int:
    """How many of so many columns a layer holds."""
    return min(columns, layer.sliding_window - 1) if layer.is_sliding else columns


def _widened(states: Tensor, columns: int) -> Tensor:
    return F.pad(states, (0, 0, columns - states.shape[2], 0)) if states.shape[2] < columns else states


def _shorten(cache: Any, columns: int) -> None:
    """Keep the newest columns."""
    for layer in _full(cache):
        first = layer.keys.shape[2] - _held(layer, columns)
        layer.keys, layer.values = layer.keys[:, :, first:], layer.values[:, :, first:]
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length = columns

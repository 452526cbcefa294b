"""Rows that take their next token together. Others may join them between two steps, and each may leave."""

# B rows, T columns of the cache, N columns of the next pass, D width of the LLM

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt4o.models import generation_cache as caches
from minigpt4o.models.generation_choice import Row, choose


class Rows:
    """The state of B answers between two passes of the model.

    `embeddings` (B, N, D) are what the model reads first, padded on the left as `mask` (B, T) says; T is greater than
    N where `cache` already holds the keys and values of what stands before.
    """

    def __init__(self, llm: Any, rows: Sequence[Row], embeddings: Tensor, mask: Tensor, cache: Any = None) -> None:
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        self.llm = llm
        self.rows = list(rows)
        self.cache = cache if cache is not None else llm.new_cache()
        self.end_ids = llm.eos_ids
        self.lengths: list[int] = mask.sum(dim=1).tolist()  # columns that belong to each row
        self._mask, self._last = mask, positions[:, -1:]  # (B, T) and (B, 1)
        self._padded = min(self.lengths) < mask.shape[1]
        self._dtype = embeddings.dtype
        self._inputs: Tensor | None = embeddings
        self._positions = positions[:, -embeddings.shape[1] :]
        self._tokens: Tensor | None = None  # (B,) chosen last, not read by the model yet

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """T, after the last pass."""
        return int(self._mask.shape[1])

    @property
    def joinable(self) -> bool:
        """Whether other rows can join these."""
        return caches.joinable(self.cache)

    def step(self) -> list[int]:
        """One pass of the model: the next token of each row."""
        if self._inputs is None:
            self._extend()
        mask = self._mask if self._padded else None
        hidden = self.llm.hidden(self._inputs, mask, self._positions, self.cache)[:, -1]
        self._inputs = None
        self._tokens = choose(self.llm.logits(hidden), self.rows, self.end_ids)
        return self._tokens.tolist()

    def _extend(self) -> None:
        """Make the tokens chosen last what is read next."""
        assert self._tokens is not None
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        self._last = self._positions = self._last + 1
        self._inputs = self.llm.embed(self._tokens.unsqueeze(1)).to(self._dtype)
        self.lengths = [length + 1 for length in self.lengths]

    def keep(self, places: Sequence[int]) -> None:
        """Let all rows but those at `places` leave; between two steps only."""
        assert self._tokens is not None, "rows leave after a step"
        at = torch.tensor(places, device=self._mask.device)
        self.cache.batch_select_indices(at)
        self._mask, self._last, self._tokens = self._mask[at], self._last[at], self._tokens[at]
        self.rows = [self.rows[i] for i in places]
        self.lengths = [self.lengths[i] for i in places]

    def trim(self) -> bool:
        """Leave out the columns that no row uses any more; False if there are none, or none can be left out."""
        spare = self.width - max(self.lengths)
        if not spare or not self.joinable:
            return False
        caches.drop_left(self.cache, spare)
        self._mask = self._mask[:, spare:]
        self._padded = min(self.lengths) < self.width
        return True

    def join(self, other: Rows) -> None:
        """Take in the rows of `other`, which is used up; both between two steps."""
        assert self._tokens is not None and other._tokens is not None, "rows join after a step"
        width = max(self.width, other.width)
        caches.join(self.cache, other.cache)
        self._mask = torch.cat([F.pad(rows._mask, (width - rows.width, 0)) for rows in (self, other)])
        self._last = torch.cat([self._last, other._last])
        self._tokens = torch.cat([self._tokens, other._tokens])
        self.rows += other.rows
        self.lengths += other.lengths
        self._padded = min(self.lengths) < width

    def cache_of(self, place: int) -> Any:
        """A copy of the keys and values of one row: its prompt and all its tokens but the last."""
        return caches.row_of(self.cache, place, self.lengths[place])

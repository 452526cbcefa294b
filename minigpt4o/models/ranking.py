"""How likely a model finds given answers: the prompt with its media runs once, whatever the number of answers."""

# B prompts, T their tokens, N pairs of a prompt and an answer, A tokens of the longest answer

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.batch import Batch

PAIRS = 64  # pairs of one forward pass; bounds the memory of the copied caches


@dataclass(frozen=True)
class Likelihood:
    """Log-probability of one answer after its prompt, summed over its tokens."""

    total: float  # natural logarithm
    tokens: int
    greedy: bool  # each token is the likeliest one: greedy decoding would say just this

    @property
    def mean(self) -> float:
        """Per token, so that a long answer is not less likely merely by being long."""
        return self.total / self.tokens


def padded_places(context: int, tokens: int) -> int:
    """Places over which MiniGPT-4's ranking takes the mean of an answer's losses: its whole row, padding included.

    `context`: places of the longest prompt beside it, BOS included; `tokens`: those of the longest answer.
    """
    return context + tokens - 1  # the first place foretells nothing


@torch.no_grad()
def rank_batch(
    model: Any, batch: Batch, answers: Sequence[Sequence[Sequence[int]]], pairs: int = PAIRS
) -> list[list[Likelihood]]:
    """The likelihood of each answer, as token ids with their end, after each prompt padded on the left.

    Encoders, bridges and the prompt run once for each prompt; its keys and values serve all its answers. What an
    answer gets depends neither on the other answers nor on the other rows. Raises DataError for an answer without
    tokens, or one that does not fit the model's positions.
    """
    assert len(answers) == len(batch), f"{len(answers)} lists of answers for {len(batch)} prompts"
    flat = [(row, ids) for row, given in enumerate(answers) for ids in given]
    for row, ids in flat:
        if not ids:
            where = batch.samples[row].id if batch.samples else row
            raise DataError(f"sample {where!r}: an answer to rank has no token")
    batch, was_training = batch.to(model.device), model.training
    model.eval()
    try:
        with model.autocast():
            found = _likelihoods(model, batch, flat, pairs)
    finally:
        model.train(was_training)
    ranked: list[list[Likelihood]] = [[] for _ in range(len(batch))]
    for (row, ids), (total, greedy) in zip(flat, found, strict=True):
        ranked[row].append(Likelihood(total, len(ids), greedy))
    return ranked


def _likelihoods(
    model: Any, batch: Batch, flat: Sequence[tuple[int, Sequence[int]]], pairs: int
) -> list[tuple[float, bool]]:
    mask = batch.attention_mask
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    cache = model.llm.new_cache()
    first = model.llm.hidden(model.embed(batch), mask, positions, cache)[:, -1]  # (B, D), foretells the first token
    found: list[tuple[float, bool]] = []
    for start in range(0, len(flat), pairs):
        found += _of_pairs(model.llm, flat[start : start + pairs], first, mask, positions[:, -1], cache)
    return found


def _of_pairs(
    llm: Any, flat: Sequence[tuple[int, Sequence[int]]], first: Tensor, mask: Tensor, last: Tensor, cache: Any
) -> list[tuple[float, bool]]:
    """Summed log-probabilities of N answers, and whether they are greedy; the prompts' cache is left as it is."""
    rows = torch.tensor([row for row, _ in flat], device=mask.device)
    longest = max(len(ids) for _, ids in flat)
    ids = torch.zeros(len(flat), longest, dtype=torch.int64)  # (N, A)
    real = torch.zeros_like(ids)
    for place, (_, answer) in enumerate(flat):
        ids[place, : len(answer)] = torch.tensor(list(answer))
        real[place, : len(answer)] = 1
    ids, real = ids.to(mask.device), real.to(mask.device)
    hidden = first[rows].unsqueeze(1)  # (N, 1, D)
    if longest > 1:
        own = copy.deepcopy(cache)
        own.batch_select_indices(rows)
        ahead, kept = ids[:, :-1], real[:, :-1]
        places = last[rows].unsqueeze(1) + kept.cumsum(dim=-1)
        inputs = llm.embed(ahead).to(first.dtype)
        later = llm.hidden(inputs, torch.cat([mask[rows], kept], dim=1), places, own)
        hidden = torch.cat([hidden, later.to(hidden.dtype)], dim=1)  # (N, A, D)
    logs = llm.logits(hidden[real.bool()]).float().log_softmax(dim=-1)  # (all tokens of all answers, V)
    said = ids[real.bool()]
    each = logs.gather(1, said.unsqueeze(1)).squeeze(1).double()
    owners = torch.arange(len(flat), device=each.device).repeat_interleave(real.sum(dim=1))
    totals = torch.zeros(len(flat), dtype=torch.float64, device=each.device).index_add_(0, owners, each)
    others = torch.zeros(len(flat), dtype=torch.int64, device=each.device)
    others.index_add_(0, owners, (logs.argmax(dim=-1) != said).long())
    return [(float(total), int(other) == 0) for total, other in zip(totals, others, strict=True)]

"""The micro-batches of one optimizer step, and what all ranks must know of them before the first backward pass."""

# W ranks, A micro-batches of a step, B rows of a micro-batch

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from minigpt4o.common import distributed
from minigpt4o.common.errors import Minigpt4oError
from minigpt4o.conversation.batch import IGNORE, Batch


@dataclass(frozen=True)
class Facts:
    """Sums over all ranks and micro-batches of a step."""

    learned: int  # tokens with a loss: what the summed loss is divided by, once
    tokens: int  # tokens and media places that were computed, padding not counted
    skipped: int  # samples left out, for which others stand
    ids: str  # SHA-1 of the sample ids in global order


def learned_tokens(batch: Batch) -> int:
    """Positions with a label that something stands before."""
    return int((batch.labels[:, 1:] != IGNORE).sum())


def divisors_of(window: Sequence[Batch], count: Callable[[Batch], int], learned: int, compat_ranks: int) -> list[int]:
    """What the summed loss of each micro-batch is divided by: the learned tokens of the whole step.

    With `compat_ranks` (0 = not compat) each micro-batch has the weight one, however many tokens it holds: its own
    mean on each rank, and the mean of those over the ranks.
    """
    return [count(batch) * compat_ranks if compat_ranks else learned for batch in window]


def exchange(window: Sequence[Batch], count: Callable[[Batch], int] = learned_tokens) -> Facts:
    """One collective per step. Raises Minigpt4oError if ranks hold different numbers of rows."""
    ids = [id_digest(f"{s.dataset}\0{s.id}") for batch in window for s in batch.samples]
    head = [
        len(ids),
        sum(count(b) for b in window),
        sum(int(b.attention_mask.sum()) for b in window),
        sum(len(b.skipped) for b in window),
    ]
    found = [row.tolist() for row in distributed.all_gather(torch.tensor([*head, *ids], dtype=torch.int64))]
    if len({row[0] for row in found}) > 1:
        raise Minigpt4oError(f"ranks hold {[row[0] for row in found]} samples in one step; they must hold equally many")
    learned, tokens, skipped = (sum(row[i] for row in found) for i in range(1, len(head)))
    return Facts(learned, tokens, skipped, global_order_sha1([row[len(head) :] for row in found], len(window)))


def id_digest(word: str) -> int:
    """63 bits of a sample's id, fit for a tensor."""
    return int.from_bytes(hashlib.sha1(word.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def global_order_sha1(by_rank: Sequence[Sequence[int]], micro_batches: int) -> str:
    """One word for the order of a global batch, the same on any number of ranks.

    A micro-batch takes the next W * B positions; rank r has the r-th stretch of B of them.
    """
    rows = len(by_rank[0]) // micro_batches
    order = [i for m in range(micro_batches) for ids in by_rank for i in ids[m * rows : (m + 1) * rows]]
    return hashlib.sha1(b"".join(i.to_bytes(8, "big") for i in order)).hexdigest()

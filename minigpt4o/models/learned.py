"""Run a language model over a batch and keep only the states that have something to predict."""

# B rows, T tokens, D width of the states, E of what stands for a token, n learned positions

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minigpt4o.conversation.batch import Batch
from minigpt4o.models.loss import learned_states
from minigpt4o.models.padding import length_groups, padded_right


def learned_hidden(
    hidden: Callable[..., Tensor], embeddings: Tensor, batch: Batch, spread: bool
) -> tuple[Tensor, Tensor]:
    """Hidden states (n, D) before the learned positions, and the ids (n,) to predict there.

    `hidden` maps (B, T, E), a mask or None, and positions to (B, T, D). With `spread` (ZeRO-3) all rows go through it
    in one call, as on every other rank.
    """
    embeddings, mask = embeddings[:, :-1], batch.attention_mask[:, :-1]  # the last place predicts nothing
    labels = batch.labels
    if not padded_right(mask):
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        return learned_states(hidden(embeddings, mask, positions), labels)
    # Padding on the right needs no mask: no real token can look ahead at it, and plain causal attention is the fast
    # path of every backend.
    if embeddings.is_cuda or spread:
        return learned_states(hidden(embeddings, None), labels)
    order, groups = length_groups(mask.sum(dim=1))
    if len(groups) > 1:
        embeddings, labels = embeddings[order], labels[order]
    pieces = [
        learned_states(hidden(embeddings[rows, :length], None), labels[rows, : length + 1]) for rows, length in groups
    ]
    states, targets = zip(*pieces, strict=True)
    return torch.cat(states), torch.cat(targets)

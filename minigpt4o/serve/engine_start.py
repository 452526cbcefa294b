"""From prompts to rows that can take their first step: embeddings, masks, and caches of earlier turns."""

# B rows, T places of the longest, D width of what the model reads

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt4o.conversation.batch import SLOTS
from minigpt4o.models.generation_rows import Rows
from minigpt4o.models.padding import length_groups
from minigpt4o.serve.engine_jobs import Job


def begin_fresh(model: Any, jobs: Sequence[Job]) -> Rows:
    """Rows that read their whole prompts, and what was already said of their answers."""
    for job in jobs:
        job.reused = 0
    embeddings, mask = embedded(model, jobs)
    return Rows(model.llm, [job.row for job in jobs], embeddings, mask)


def begin_reused(model: Any, jobs: Sequence[Job], cache: Any, same: int) -> Rows:
    """The row of one job, whose first `same` places the cache holds."""
    (job,) = jobs
    job.reused = same
    embeddings, mask = embedded(model, jobs)
    return Rows(model.llm, [job.row], embeddings[:, same:], mask, cache)


def alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in batches of like length, where that saves more than one more pass costs."""
    if not jobs:
        return []
    order, groups = length_groups(torch.tensor([len(job.prompt.ids) for job in jobs]))
    ordered = [jobs[i] for i in order.tolist()]
    return [ordered[part] for part, _ in groups]


def embedded(model: Any, jobs: Sequence[Job]) -> tuple[Tensor, Tensor]:
    """(B, T, D) and the mask (B, T), padded on the left. All media must have their features."""
    rows = [[*job.prompt.ids, *job.row.tokens] for job in jobs]
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), model.llm.pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row)
        mask[i, longest - len(row) :] = 1
    features: dict[str, Tensor] = {}
    for kind in SLOTS:
        seen = [medium.features for job in jobs for medium in job.prompt.media.get(kind, ())]
        if seen:
            features[kind] = torch.stack([one for one in seen if one is not None])
    ids, mask = ids.to(model.device), mask.to(model.device)
    return model.spliced(ids, features, [job.prompt.sample for job in jobs]), mask

"""Beam search of transformers: the first beam of each row becomes its answer."""

# B rows, T tokens of the prompts, D width of the LLM

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt4o.models.generation_choice import Row

OnStep = Callable[[], bool]


def beams(llm: Any, embeddings: Tensor, mask: Tensor, rows: Sequence[Row], on_step: OnStep | None = None) -> None:
    """Complete the answers to prompts (B, T, D), which have one decoding and the same stop strings.

    `on_step` is called after every step; if it says True the search ends with what it has.
    """
    if rows[0].decoding.do_sample and len(rows) > 1:  # draws of one stream would depend on the rows beside
        for i, row in enumerate(rows):
            real = mask[i].bool()
            beams(llm, embeddings[i : i + 1, real], mask[i : i + 1, real], [row], on_step)
        return
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    decoding, words = rows[0].decoding, rows[0].answer.stop
    processors = LogitsProcessorList()
    if decoding.repetition_penalty != 1.0:
        # Not as `repetition_penalty`: transformers 5.23 then leaves out as many new tokens as the row has padding,
        # which is meant for a prompt of ids and wrong for a prompt of embeddings.
        processors.append(RepetitionPenaltyLogitsProcessor(float(decoding.repetition_penalty)))
    most = min(row.limit for row in rows)
    sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p} if decoding.do_sample else {}
    devices = [embeddings.device] if embeddings.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(decoding.seed)
        found = llm.model.generate(
            inputs_embeds=embeddings.to(llm.model.dtype),
            attention_mask=mask,
            max_new_tokens=most,
            min_new_tokens=min(decoding.min_new_tokens, most) or None,
            do_sample=decoding.do_sample,
            num_beams=decoding.num_beams,
            logits_processor=processors,
            length_penalty=decoding.length_penalty,
            eos_token_id=sorted(rows[0].answer.end_ids),
            pad_token_id=llm.pad_id,
            **({"stop_strings": list(words), "tokenizer": llm.tokenizer} if words else {}),
            **({"stopping_criteria": _criteria(on_step)} if on_step is not None else {}),
            **sampling,
        )
    for row, ids in zip(rows, found.tolist(), strict=True):
        for token in ids:
            row.take(token)
        row.end()


def _criteria(on_step: OnStep) -> Any:
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Asked(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Tensor:
            return torch.full((len(input_ids),), on_step(), dtype=torch.bool, device=input_ids.device)

    return StoppingCriteriaList([Asked()])

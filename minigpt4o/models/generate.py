"""Batched generation: greedy, sampling or beams; every row stops by itself and streams its own text."""

# B rows, T tokens of the prompts, D width of the LLM

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.models.answer import Answer
from minigpt4o.models.generation_beams import beams
from minigpt4o.models.generation_choice import Row
from minigpt4o.models.generation_rows import Rows

if TYPE_CHECKING:
    from minigpt4o.models.llms.causal_lm import CausalLM

OnText = Callable[[int, str], None]


@torch.no_grad()
def answer_batch(
    model: Any, batch: Batch, decoding: Decoding, on_text: OnText | None = None, stop: Sequence[str] = ()
) -> list[str]:
    """What `generate` gives for a model with `embed`, `llm` and `autocast`, in eval mode meanwhile."""
    batch, was_training = batch.to(model.device), model.training
    model.eval()
    try:
        with model.autocast():
            return generate(model.llm, model.embed(batch), batch, decoding, on_text, stop)
    finally:
        model.train(was_training)


def generate(
    llm: CausalLM,
    embeddings: Tensor,
    batch: Batch,
    decoding: Decoding,
    on_text: OnText | None = None,
    stop: Sequence[str] = (),
) -> list[str]:
    """Answers to spliced prompts (B, T, D) padded on the left, cut before their stop strings and stripped.

    A row's answer does not depend on the rows beside it: not its stop, nor its random draws, which come from
    (decoding.seed, sample id). With beams nothing streams; `on_text` gets each answer whole.
    """
    check_decoding(decoding)
    assert bool(batch.attention_mask[:, -1].all()), "prompts must be padded on the left"
    rows = _rows(llm, batch, decoding, on_text, stop)
    if decoding.num_beams > 1:
        beams(llm, embeddings, batch.attention_mask, rows)
    else:
        _loop(Rows(llm, rows, embeddings, batch.attention_mask))
    return [row.answer.text for row in rows]


def check_decoding(decoding: Decoding) -> None:
    """Raises ConfigError for a decoding that cannot be followed."""
    if decoding.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {decoding.max_new_tokens}; at least 1 is needed")
    if decoding.do_sample and decoding.temperature <= 0:
        raise ConfigError(f"temperature is {decoding.temperature}; set it above 0, or do_sample: false")
    if decoding.do_sample and not 0 < decoding.top_p <= 1:
        raise ConfigError(f"top_p is {decoding.top_p}; it must be above 0 and at most 1")
    if decoding.repetition_penalty <= 0:
        raise ConfigError(f"repetition_penalty is {decoding.repetition_penalty}; 1 means none, more discourages")


def ends_of(llm: Any, stop: Sequence[str]) -> tuple[list[str], frozenset[int]]:
    """What ends an answer: strings, and ids. A stop that is one token of its own counts by its id."""
    known = llm.tokenizer.get_added_vocab()
    ids = frozenset([*llm.eos_ids, *(known[s] for s in stop if s in known)])
    return [s for s in stop if s and s not in known], ids


def token_limit(llm: Any, prompt: int, decoding: Decoding) -> int:
    """Tokens the answer to a prompt of so many places may take."""
    if llm.max_positions is None:
        return decoding.max_new_tokens
    room = llm.max_positions - prompt + 1  # the last token needs no place of its own
    return max(min(decoding.max_new_tokens, room), 1)


def _rows(llm: CausalLM, batch: Batch, decoding: Decoding, on_text: OnText | None, stop: Sequence[str]) -> list[Row]:
    words, ends = ends_of(llm, stop)
    names = [s.id for s in batch.samples] or [str(row) for row in range(len(batch))]
    rows = []
    for i, (name, length) in enumerate(zip(names, batch.attention_mask.sum(dim=1).tolist(), strict=True)):
        answer = Answer(llm.tokenizer, words, ends, decoding.min_new_tokens, partial(on_text, i) if on_text else None)
        rows.append(Row(answer, decoding, token_limit(llm, length, decoding), name))
    return rows


def _loop(rows: Rows) -> None:
    """One token for every row still going, until all have stopped; stopped rows leave once they are the half."""
    while True:
        for row, token in zip(rows.rows, rows.step(), strict=True):
            row.take(token)
        going = [i for i, row in enumerate(rows.rows) if not row.done]
        if not going:
            return
        full = rows.width == rows.llm.max_positions
        if len(going) * 2 <= len(rows) or full:
            rows.keep(going)
        if full and not rows.trim():  # the longest row has ended, but the others cannot use its place
            for row in rows.rows:
                row.end()
            return

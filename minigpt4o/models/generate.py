"""Batched generation: greedy, sampling or beams; every row stops by itself and streams its own text."""

# B rows still going, T tokens of the prompts, D width of the LLM, V vocabulary

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Batch, Decoding
from minigpt4o.models.answer import Answer

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
    _check(decoding)
    assert bool(batch.attention_mask[:, -1].all()), "prompts must be padded on the left"
    answers = _answers(llm, len(batch), decoding, on_text, stop)
    if decoding.num_beams > 1:
        _beams(llm, embeddings, batch.attention_mask, decoding, answers)
    else:
        _loop(llm, embeddings, batch, decoding, answers)
    return [answer.text for answer in answers]


def _check(decoding: Decoding) -> None:
    if decoding.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {decoding.max_new_tokens}; at least 1 is needed")
    if decoding.do_sample and decoding.temperature <= 0:
        raise ConfigError(f"temperature is {decoding.temperature}; set it above 0, or do_sample: false")
    if decoding.do_sample and not 0 < decoding.top_p <= 1:
        raise ConfigError(f"top_p is {decoding.top_p}; it must be above 0 and at most 1")
    if decoding.repetition_penalty <= 0:
        raise ConfigError(f"repetition_penalty is {decoding.repetition_penalty}; 1 means none, more discourages")


def _answers(llm: CausalLM, rows: int, decoding: Decoding, on_text: OnText | None, stop: Sequence[str]) -> list[Answer]:
    known = llm.tokenizer.get_added_vocab()
    ends = frozenset([*llm.eos_ids, *(known[s] for s in stop if s in known)])
    words = [s for s in stop if s and s not in known]
    show = (lambda row: partial(on_text, row)) if on_text else (lambda row: None)
    return [Answer(llm.tokenizer, words, ends, decoding.min_new_tokens, show(row)) for row in range(rows)]


def _loop(llm: CausalLM, embeddings: Tensor, batch: Batch, decoding: Decoding, answers: list[Answer]) -> None:
    """One token for every row still going, until all have stopped; stopped rows leave once they are the half."""
    mask = batch.attention_mask
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    last = positions[:, -1:]
    padded = not bool(mask.all())
    cache = llm.new_cache()
    limit = decoding.max_new_tokens
    if llm.max_positions is not None:  # the last token needs no place of its own
        limit = max(min(limit, llm.max_positions - mask.shape[1] + 1), 1)
    rows = list(range(len(answers)))  # which answers the cache's rows belong to
    chooser = _Chooser(llm, decoding, batch)
    inputs = embeddings
    for step in range(limit):
        hidden = llm.hidden(inputs, mask if padded else None, positions, cache)[:, -1]
        tokens = chooser.choose(llm.logits(hidden), rows, answers)  # (B,)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            answers[row].add(token)
        going = [i for i, row in enumerate(rows) if not answers[row].done]
        if not going or step + 1 == limit:
            break
        if len(going) * 2 <= len(rows):
            keep = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(keep)
            mask, last, tokens, rows = mask[keep], last[keep], tokens[keep], [rows[i] for i in going]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        last = positions = last + 1
        inputs = llm.embed(tokens.unsqueeze(1)).to(embeddings.dtype)
    for answer in answers:
        if not answer.done:
            answer.finish()


class _Chooser:
    """Picks the next token of each row from its logits."""

    def __init__(self, llm: CausalLM, decoding: Decoding, batch: Batch) -> None:
        self.decoding = decoding
        self.end_ids = llm.eos_ids
        names = [s.id for s in batch.samples] or [str(row) for row in range(len(batch))]
        self.draws = [_generator(decoding.seed, name) for name in names] if decoding.do_sample else []

    def choose(self, logits: Tensor, rows: list[int], answers: list[Answer]) -> Tensor:
        """(B, V) float32 -> (B,) token ids."""
        decoding = self.decoding
        if decoding.repetition_penalty != 1.0:
            for i, row in enumerate(rows):
                seen = torch.tensor(sorted(set(answers[row].ids)), dtype=torch.int64, device=logits.device)
                values = logits[i, seen]
                penalty = decoding.repetition_penalty
                logits[i, seen] = torch.where(values > 0, values / penalty, values * penalty)
        for i, row in enumerate(rows):
            if len(answers[row].ids) < decoding.min_new_tokens:
                logits[i, self.end_ids] = -torch.inf
        return self._draw(logits, rows) if decoding.do_sample else logits.argmax(dim=-1)

    def _draw(self, logits: Tensor, rows: list[int]) -> Tensor:
        """Sample from the smallest set of tokens whose probability reaches top_p."""
        probabilities, ids = (logits / self.decoding.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        reached = probabilities.cumsum(dim=-1)
        probabilities = probabilities.masked_fill(reached - probabilities >= self.decoding.top_p, 0.0)
        reached = probabilities.cumsum(dim=-1)
        uniform = torch.stack([torch.rand(1, generator=self.draws[row]) for row in rows]).to(logits.device)
        picked = (reached <= uniform * reached[:, -1:]).sum(dim=-1, keepdim=True)
        last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
        return ids.gather(1, torch.minimum(picked, last)).squeeze(1)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _beams(llm: CausalLM, embeddings: Tensor, mask: Tensor, decoding: Decoding, answers: list[Answer]) -> None:
    """Beam search of transformers; the first beam of each row becomes the answer."""
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    words = answers[0].stop
    processors = LogitsProcessorList()
    if decoding.repetition_penalty != 1.0:
        # Not as `repetition_penalty`: transformers 5.23 then leaves out as many new tokens as the row has padding,
        # which is meant for a prompt of ids and wrong for a prompt of embeddings.
        processors.append(RepetitionPenaltyLogitsProcessor(float(decoding.repetition_penalty)))
    sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p} if decoding.do_sample else {}
    devices = [embeddings.device] if embeddings.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(decoding.seed)
        found = llm.model.generate(
            inputs_embeds=embeddings.to(llm.model.dtype),
            attention_mask=mask,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens or None,
            do_sample=decoding.do_sample,
            num_beams=decoding.num_beams,
            logits_processor=processors,
            length_penalty=decoding.length_penalty,
            eos_token_id=sorted(answers[0].end_ids),
            pad_token_id=llm.pad_id,
            **({"stop_strings": list(words), "tokenizer": llm.tokenizer} if words else {}),
            **sampling,
        )
    for answer, ids in zip(answers, found.tolist(), strict=True):
        for token in ids:
            answer.add(token)
        if not answer.done:
            answer.finish()

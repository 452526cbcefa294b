"""Samples -> examples exactly as MiniGPT-4 and MiniGPT-v2 cut, truncate and label them, faults included."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import IGNORE, Example
from minigpt4o.conversation.encode import MAX_CONTEXT_LEN, SampleEncoder, Span
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.sample import Sample, Turn
from minigpt4o.conversation.template import Segment


class CompatEncoder(SampleEncoder):
    """The reference's rows: BOS + context + answers.

    What stands before the first answer is the context, cut at `max_context_len` places if it holds media. The answers
    with the questions between them are cut at `max_txt_len` tokens, so that a long answer loses its end symbol. An
    answer's token that happens to be the padding token is not learned. Special tokens are found in any text.
    """

    def __init__(self, *values: Any, max_context_len: int = MAX_CONTEXT_LEN, **more: Any) -> None:
        """`values` and `more` are those of SampleEncoder."""
        super().__init__(*values, **more)
        self.max_context_len = max_context_len

    def example(self, sample: Sample, rng: random.Random) -> Example:
        """The whole conversation. Raises SkipSample if it cannot be learned from or its media do not fit."""
        view = self._view(sample, rng, learned=True)
        segments = self.template.render(view.turns)
        first = next((i for i, segment in enumerate(segments) if segment.kind == "learned"), len(segments))
        context = self._context(sample, self._spans(segments[:first], bos=False))
        answers = self._spans(segments[first:], bos=False)
        kept = _first(answers, self.max_txt_len)
        before = [*self._spans([], self.template.bos), *context]
        row = [*before, *kept]
        example = self._open(view, row, rng, _learned(answers) - _learned(kept))
        example.labels[example.labels == self.tokenizer.pad_token_id] = IGNORE
        example.context = sum(len(ids) for ids, _ in before)
        return example

    def _context(self, sample: Sample, spans: list[Span]) -> list[Span]:
        """What stands before the first answer, cut as the reference cuts it: only where it holds media."""
        if not (sample.images or sample.audios):
            return spans
        kept = _first(spans, self.max_context_len)
        if _slots(kept) < _slots(spans):
            raise SkipSample(
                "too_long",
                f"{sample.where or sample.id}: the media and words before the answer take"
                f" {sum(len(ids) for ids, _ in spans)} places; media would be lost where they are cut, at"
                f" max_context_len={self.max_context_len}",
            )
        return kept

    def _prompt_spans(self, turns: Sequence[Turn]) -> list[Span]:
        template = self.template.serving
        segments = template.render(turns, open_answer=True)
        if template.joined:  # an earlier answer is a piece of the text around it
            segments = [Segment("control", s.text + s.end) if s.kind == "learned" else s for s in segments]
        return self._spans(segments, template.bos)

    def _run_ids(self, run: Sequence[Segment]) -> list[int]:
        """One run of neighbouring text, cut by the tokenizer as it comes: special tokens count wherever they stand."""
        text = unescape_marks("".join(segment.text for segment in run))
        if not text:
            return []
        try:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        except (TypeError, UnicodeError) as error:
            raise SkipSample("bad_text", f"text cannot be tokenised: {error}") from error


def _first(spans: Sequence[Span], limit: int) -> list[Span]:
    """The first `limit` places."""
    kept: list[Span] = []
    for ids, learned in spans:
        if limit <= 0:
            break
        kept.append((ids[:limit], learned))
        limit -= len(ids)
    return kept


def _learned(spans: Sequence[Span]) -> int:
    return sum(len(ids) for ids, learned in spans if learned)


def _slots(spans: Sequence[Span]) -> int:
    return sum(1 for ids, _ in spans for i in ids if i < 0)

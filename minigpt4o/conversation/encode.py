"""Turn a `Sample` into an `Example`: render the template, cut tokens, open media. Training and serving share it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import IGNORE, SLOTS, Example
from minigpt4o.conversation.fit import Fit, fit_turns
from minigpt4o.conversation.marks import count_marks, unescape_marks
from minigpt4o.conversation.sample import MARKS, Media, MediaKind, Sample, Turn
from minigpt4o.conversation.template import Segment, Template

if TYPE_CHECKING:
    import torch

# A span is a list of (ids, learned): the row's ids in order, with who has to learn them.
Span = tuple[list[int], bool]
Processors = Mapping[str, "Callable[[Media, random.Random], torch.Tensor]"]
MAX_CONTEXT_LEN = 3800  # the reference's own


class SampleEncoder:
    """Samples -> examples for one tokenizer, template and set of processors.

    Each run of text that is not learned is tokenised as one string and each learned span alone, so that no token
    reaches over the border: what is sent when serving is then a prefix of what was seen in training.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        slots: Mapping[str, int],
        processors: Processors,
        max_txt_len: int = 160,
        positions: int = 0,
        answer_room: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.slots = dict(slots)  # tokens that one picture or sound fills
        self.processors = dict(processors)
        self.max_txt_len = max_txt_len  # text tokens of one row, media places not counted
        self.positions = positions  # places of the language model for a whole row; 0: no limit
        self.answer_room = answer_room  # places a prompt leaves free for the answer
        added = set(tokenizer.get_added_vocab())  # an ordinary word may serve as padding: it stays a word in text
        specials = sorted(added | set(tokenizer.all_special_tokens) - {tokenizer.pad_token}, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, specials)) + ")") if specials else None

    def example(self, sample: Sample, rng: random.Random) -> Example:
        """The whole conversation, labels on the assistant's turns. Raises SkipSample if it cannot be learned from."""
        turns, truncated = self._fit(sample)
        return self._open(sample, self._spans(self.template.render(turns), self.template.bos), rng, truncated)

    def prompt(self, sample: Sample, rng: random.Random) -> Example:
        """The conversation up to the point where the assistant speaks next; a final assistant turn is left out.

        If the row exceeds the model's positions, the oldest turns are left out; their media are kept.
        """
        turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
        fit = self.fit_prompt(turns)
        truncated = 0
        if fit.dropped:
            truncated = self.text_tokens(turns, open_answer=True) - self.text_tokens(fit.turns, open_answer=True)
        if self.positions and fit.places > self.positions - self.answer_room:
            raise SkipSample("too_long", f"{sample.where or sample.id}: {self._too_long(fit.places)}")
        return self._open(sample, self._prompt_spans(fit.turns), rng, truncated, needs_label=False)

    def fit_prompt(self, turns: Sequence[Turn]) -> Fit:
        """The turns a prompt can hold beside the answer; all of them where the model's positions are not known."""
        if not self.positions:
            return Fit(list(turns), 0)
        return fit_turns(turns, self.positions - self.answer_room, self.places)

    def places(self, turns: Sequence[Turn]) -> int:
        """Places of the model's row that a prompt of these turns takes, media included."""
        return sum(len(ids) for ids, _ in self._prompt_spans(turns))

    def text_tokens(self, turns: Sequence[Turn], open_answer: bool = False) -> int:
        """How many text tokens these turns take, media places not counted."""
        if open_answer:
            spans = self._prompt_spans(turns)
        else:
            spans = self._spans(self.template.render(turns), self.template.bos)
        return sum(1 for ids, _ in spans for i in ids if i >= 0)

    def _prompt_spans(self, turns: Sequence[Turn]) -> list[Span]:
        return self._spans(self.template.render(turns, open_answer=True), self.template.bos)

    def _fit(self, sample: Sample) -> tuple[list[Turn], int]:
        """The turns that fit max_txt_len, and how many learned tokens were cut. The end of an answer is kept."""
        turns = list(sample.turns)
        cut = 0
        while True:
            over = self.text_tokens(turns) - self.max_txt_len
            if over <= 0:
                return turns, cut
            last = turns[-1]
            ids = self._plain(last.text) if last.role == "assistant" else []
            if len(ids) > over:
                kept = self.tokenizer.decode(ids[: len(ids) - over], skip_special_tokens=False)
                turns[-1] = replace(last, text=kept.rstrip("\ufffd"))
                cut += over
                continue
            cut += len(ids)
            turns.pop()
            while turns and turns[-1].role != "assistant":
                turns.pop()
            if not any(t.role == "assistant" for t in turns):
                where = sample.where or sample.id
                size = over + self.max_txt_len
                raise SkipSample(
                    "too_long",
                    f"{where}: the question alone, without its answer, leaves no room in a row of {size} text tokens;"
                    f" max_txt_len is {self.max_txt_len}",
                )

    def _too_long(self, needed: int) -> str:
        room = f", {self.answer_room} of them for the answer" if self.answer_room else ""
        return f"the row takes {needed} places (text and media), but the model has {self.positions}{room}"

    def _spans(self, segments: Sequence[Segment], bos: bool) -> list[Span]:
        """The row in order; it starts with BOS if `bos` says so and the tokenizer has one."""
        bos_id = self.tokenizer.bos_token_id
        spans: list[Span] = [([bos_id], False)] if bos and bos_id is not None else []
        run: list[Segment] = []
        for segment in segments:
            if segment.kind in ("control", "said"):
                run.append(segment)
                continue
            spans.append((self._run_ids(run), False))
            run = []
            if segment.kind == "learned":
                end = Segment("control", segment.end)
                spans.append((self._run_ids([Segment("said", segment.text), end]), True))
            else:
                spans.append(([SLOTS[segment.kind]] * self._slots_of(segment.kind), False))
        spans.append((self._run_ids(run), False))
        return [span for span in spans if span[0]]

    def _slots_of(self, kind: str) -> int:
        if kind not in self.slots:
            known = ", ".join(self.slots) or "no media"
            raise SkipSample("media_mismatch", f"the text has a place for {kind}, but the model takes {known}")
        return self.slots[kind]

    def _run_ids(self, run: Sequence[Segment]) -> list[int]:
        """One run of neighbouring text; only the template's own special tokens are taken as such."""
        ids: list[int] = []
        text = ""
        for segment in run:
            pieces = [segment.text]
            if segment.kind == "control" and self._special is not None:
                pieces = self._special.split(segment.text)
            for i, piece in enumerate(pieces):
                if i % 2:  # a special token of the template
                    ids += self._plain(text)
                    ids.append(self.tokenizer.convert_tokens_to_ids(piece))
                    text = ""
                else:
                    text += piece
        return ids + self._plain(text)

    def _plain(self, text: str) -> list[int]:
        """Ids of text in which special tokens are only words."""
        if not text:
            return []
        try:
            return list(
                self.tokenizer(unescape_marks(text), add_special_tokens=False, split_special_tokens=True)["input_ids"]
            )
        except (TypeError, UnicodeError) as error:
            raise SkipSample("bad_text", f"text cannot be tokenised: {error}") from error

    def _open(
        self, sample: Sample, spans: Sequence[Span], rng: random.Random, truncated: int, needs_label: bool = True
    ) -> Example:
        import torch

        ids = [i for span, _ in spans for i in span]
        labels = [i if learned else IGNORE for span, learned in spans for i in span]
        if needs_label and all(label == IGNORE for label in labels):
            raise SkipSample("no_target", f"{sample.where or sample.id}: no assistant turn with words")
        self._check_media(sample, ids)
        if self.positions and len(ids) > self.positions:
            raise SkipSample("too_long", f"{sample.where or sample.id}: {self._too_long(len(ids))}")
        return Example(
            input_ids=torch.tensor(ids, dtype=torch.long),
            labels=torch.tensor(labels, dtype=torch.long),
            images=[self._process("image", media, rng) for media in sample.images],
            audios=[self._process("audio", media, rng) for media in sample.audios],
            sample=sample,
            truncated=truncated,
        )

    def _check_media(self, sample: Sample, ids: Sequence[int]) -> None:
        given: dict[MediaKind, list[Media]] = {"image": sample.images, "audio": sample.audios}
        for kind, media in given.items():
            places = ids.count(SLOTS[kind]) // max(self.slots.get(kind, 1), 1)
            if places != len(media):
                said = sum(count_marks(t.text, MARKS[kind]) for t in sample.turns)
                raise SkipSample(
                    "media_mismatch",
                    f"{sample.where or sample.id}: the text has {said} place(s) for {kind}, {places} of them in the"
                    f" row, but {len(media)} came with it",
                )

    def _process(self, kind: str, media: Media, rng: random.Random) -> torch.Tensor:
        if kind not in self.processors:
            raise SkipSample("media_mismatch", f"{media}: no processor for {kind} is configured for this data set")
        return self.processors[kind](media, rng)

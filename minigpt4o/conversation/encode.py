"""Turn a `Sample` into an `Example`: render the template, cut tokens, open media. Training and serving share it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.batch import IGNORE, SLOTS, Example
from minigpt4o.conversation.boxes import BoxError
from minigpt4o.conversation.fit import Fit, fit_turns
from minigpt4o.conversation.marks import count_marks, unescape_marks
from minigpt4o.conversation.objects import Geometry, answered_about, cut_boxes, lifted, shares, written
from minigpt4o.conversation.plain_words import PlainWords
from minigpt4o.conversation.sample import MARKS, Media, MediaKind, Sample, Turn
from minigpt4o.conversation.template import Segment, Template

if TYPE_CHECKING:
    import torch

# A span is a list of (ids, learned): the row's ids in order, with who has to learn them.
Span = tuple[list[int], bool]
Processors = Mapping[str, "Callable[[Media, random.Random], torch.Tensor]"]
MAX_CONTEXT_LEN = 3800  # the reference's own
KNOWN_TEXTS, KNOWN_LENGTH = 1024, 2000  # texts whose ids are kept, and the characters of one at most


@dataclass
class View:
    """A sample as the model is shown it: the words to tokenise, and the pictures if they had to be opened for that."""

    sample: Sample
    turns: list[Turn]
    images: list[torch.Tensor] | None = None  # None: not opened yet
    geometries: list[Geometry] = field(default_factory=list)


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
        self._words = PlainWords(tokenizer, [a.before + a.after for a in template.roles.values()])
        self._known: dict[str, list[int]] = {}  # ids of texts met lately: instructions and system words come again
        added = set(tokenizer.get_added_vocab())  # an ordinary word may serve as padding: it stays a word in text
        specials = sorted(added | set(tokenizer.all_special_tokens) - {tokenizer.pad_token}, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, specials)) + ")") if specials else None
        self._special_ids = dict(zip(specials, tokenizer.convert_tokens_to_ids(specials), strict=True))
        self._bos_id = tokenizer.bos_token_id

    def example(self, sample: Sample, rng: random.Random) -> Example:
        """The whole conversation, labels on the assistant's turns. Raises SkipSample if it cannot be learned from."""
        view = self._view(sample, rng, learned=True)
        spans, truncated = self._fit(view)
        return self._open(view, spans, rng, truncated)

    def prompt(self, sample: Sample, rng: random.Random) -> Example:
        """The conversation up to the point where the assistant speaks next; a final assistant turn is left out.

        If the row exceeds the model's positions, the oldest turns are left out; their media are kept.
        """
        turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
        asked = replace(sample, turns=turns, boxes=cut_boxes(sample, turns))
        view = replace(self._view(asked, rng, learned=False), sample=written(sample))
        fit = self.fit_prompt(view.turns)
        truncated = 0
        if fit.dropped:
            truncated = text_tokens(self._prompt_spans(view.turns)) - text_tokens(self._prompt_spans(fit.turns))
        if self.positions and fit.places > self.positions - self.answer_room:
            raise SkipSample("too_long", f"{sample.where or sample.id}: {self._too_long(fit.places)}")
        example = self._open(view, self._prompt_spans(fit.turns), rng, truncated, needs_label=False)
        example.frame = answered_about(sample, view.geometries)
        return example

    def answer_ids(self, text: str) -> list[int]:
        """An assistant's words as training learns them after a prompt: their tokens and those of the template's end."""
        spans = self._spans(self.template.render([Turn("assistant", text)]), bos=False)
        return [i for ids, learned in spans if learned for i in ids]

    def fit_prompt(self, turns: Sequence[Turn]) -> Fit:
        """The turns a prompt can hold beside the answer; all of them where the model's positions are not known."""
        if not self.positions:
            return Fit(list(turns), 0)
        return fit_turns(turns, self.positions - self.answer_room, self.places)

    def places(self, turns: Sequence[Turn]) -> int:
        """Places of the model's row that a prompt of these turns takes, media included."""
        return sum(len(ids) for ids, _ in self._prompt_spans(turns))

    def _prompt_spans(self, turns: Sequence[Turn]) -> list[Span]:
        return self._spans(self.template.render(turns, open_answer=True), self.template.bos)

    def _view(self, sample: Sample, rng: random.Random, learned: bool) -> View:
        """The sample's boxes written in the frame of the pictures as their processor shows them.

        Pictures are opened here only if their processor may change the frame (it has `open`). It is told the boxes
        when they are learned, so that it keeps them in sight; a prompt's picture must not depend on the true answer.
        """
        self._facts()  # of a sample that was given up half way: they are nobody's
        plain = written(sample)
        look = getattr(self.processors.get("image"), "open", None)
        if look is None or not sample.images:
            return View(plain, plain.turns)
        marked = lifted(sample)
        try:
            told = [shares(marked.boxes, number) if learned else [] for number in range(len(sample.images))]
        except BoxError as error:
            raise SkipSample("bad_box", f"{sample.where or sample.id}: {error}") from error
        opened = [look(media, rng, boxes) for media, boxes in zip(sample.images, told, strict=True)]
        geometries = [geometry for _, geometry in opened]
        images = [image for image, _ in opened]
        if all(geometry.whole for geometry in geometries):
            return View(plain, plain.turns, images)
        return View(plain, written(marked, geometries).turns, images, geometries)

    def _fit(self, view: View) -> tuple[list[Span], int]:
        """The row of what fits max_txt_len, and how many learned tokens were cut. The end of an answer is kept."""
        turns, sample = list(view.turns), view.sample
        cut = 0
        while True:
            spans = self._spans(self.template.render(turns), self.template.bos)
            over = text_tokens(spans) - self.max_txt_len
            if over <= 0:
                return spans, cut
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
        spans: list[Span] = [([self._bos_id], False)] if bos and self._bos_id is not None else []
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
            if segment.kind != "control" or self._special is None:
                text += segment.text
                continue
            for i, piece in enumerate(self._special.split(segment.text)):
                if i % 2:  # a special token of the template
                    ids += self._plain(text)
                    ids.append(self._special_ids[piece])
                    text = ""
                else:
                    text += piece
        return ids + self._plain(text)

    def _plain(self, text: str) -> list[int]:
        """Ids of text in which special tokens are only words; the list is kept and must not be changed."""
        if not text:
            return []
        known = self._known.get(text)
        if known is None:
            try:
                known = self._words(unescape_marks(text))
            except (TypeError, UnicodeError) as error:
                raise SkipSample("bad_text", f"text cannot be tokenised: {error}") from error
            if len(self._known) >= KNOWN_TEXTS:
                self._known.clear()
            if len(text) <= KNOWN_LENGTH:
                self._known[text] = known
        return known

    def _open(
        self, view: View, spans: Sequence[Span], rng: random.Random, truncated: int, needs_label: bool = True
    ) -> Example:
        sample = view.sample
        ids: list[int] = []
        labels: list[int] = []
        for span, learned in spans:
            ids += span
            labels += span if learned else [IGNORE] * len(span)
        if needs_label and not any(learned for _, learned in spans):
            raise SkipSample("no_target", f"{sample.where or sample.id}: no assistant turn with words")
        self._check_media(sample, ids)
        if self.positions and len(ids) > self.positions:
            raise SkipSample("too_long", f"{sample.where or sample.id}: {self._too_long(len(ids))}")
        images = view.images
        if images is None:
            images = [self._process("image", media, rng) for media in sample.images]
        return Example(
            input_ids=_tensor(ids),
            labels=_tensor(labels),
            images=images,
            audios=[self._process("audio", media, rng) for media in sample.audios],
            sample=sample,
            truncated=truncated,
            geometries=view.geometries,
            facts=self._facts(),
        )

    def _facts(self) -> dict[str, float]:
        """What the processors noted of the media they have just opened; it is taken from them."""
        found: dict[str, float] = {}
        for processor in self.processors.values():
            noted: dict[str, float] = getattr(processor, "facts", {})
            found.update(noted)
            noted.clear()
        return found

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


def text_tokens(spans: Sequence[Span]) -> int:
    """How many text tokens these spans hold; a span of a medium's places holds none."""
    return sum(len(ids) for ids, _ in spans if ids[0] >= 0)


def _tensor(ids: list[int]) -> torch.Tensor:
    """(T,) int64; by way of numpy, which reads a list of numbers several times faster than torch."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(ids, np.int64))

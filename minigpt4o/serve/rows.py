"""A prompt and its pictures -> a row for the model: a question through the template, or a whole text as it stands."""

# T tokens of a row, S side of a picture in pixels

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.batch import IGNORE, IMAGE_SLOT, Example
from minigpt4o.conversation.marks import count_marks, escape_boxes, escape_marks
from minigpt4o.conversation.objects import Geometry
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import IMAGE_MARK, Media, Sample, Turn
from minigpt4o.processors.geometry import resized

PLACE = "<ImageHere>"  # the reference's mark of a picture in a text that is sent as it stands
WHOLE = resized((1, 1), (1, 1))  # frame of a picture that is shown whole, of any size


@dataclass(frozen=True)
class Row:
    """What is said and shown in one row, and perhaps the answer to weigh or learn."""

    text: str
    pictures: tuple[Tensor, ...] = ()  # each (3, S, S)
    answer: str | None = None
    where: str = "row 0"
    geometries: tuple[Geometry | None, ...] = ()  # how a processor changed the frames of the pictures; () = not at all


class RowMaker:
    """Rows for one model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.template = model.conversation

    @cached_property
    def side(self) -> int:
        from minigpt4o.serve.opening import image_size_of

        return image_size_of(self.model)

    def is_raw(self, text: str) -> bool:
        """Whether a text brings its own template: the reference's place mark, BOS, or the speaker's name."""
        speaker = self.template.roles["user"].before.strip()
        bos = self.model.tokenizer.bos_token or ""
        starts = tuple(word for word in (bos, speaker) if word)
        return PLACE in text or text.lstrip().startswith(starts or "\0")

    def example(self, row: Row) -> Example:
        """One row, tokenised. Raises DataError naming both sides if text and pictures do not fit."""
        self._check(row)
        try:
            return self._raw(row) if self.is_raw(row.text) else self._templated(row)
        except SkipSample as problem:
            raise DataError(f"{row.where}: {problem.detail}") from problem

    def ensure_size(self, picture: Tensor, where: str) -> None:
        """Raises DataError if a picture is not of the size the encoder was built for."""
        if tuple(picture.shape) != (3, self.side, self.side):
            raise DataError(
                f"{where}: a picture of shape {tuple(picture.shape)} was given, but the model's image encoder takes "
                f"(3, {self.side}, {self.side}); open pictures with vis_processors['eval'], or set "
                "model.encoders.image.image_size"
            )

    def _check(self, row: Row) -> None:
        for picture in row.pictures:
            self.ensure_size(picture, row.where)
        raw = self.is_raw(row.text)
        said = row.text.count(PLACE) if raw else count_marks(row.text, IMAGE_MARK)
        if said != len(row.pictures) and (raw or said):
            mark = PLACE if raw else IMAGE_MARK
            raise DataError(
                f"{row.where}: the text has {said} place(s) {mark}, but {len(row.pictures)} picture(s) came with it: "
                f"{row.text[:80]!r}"
            )

    # ---- a plain question ----

    def _templated(self, row: Row) -> Example:
        marked = row.text if count_marks(row.text, IMAGE_MARK) else IMAGE_MARK * len(row.pictures) + row.text
        turns = [Turn("user", escape_boxes(marked))]
        processors = {"image": _OpenedWithFrame(row) if any(row.geometries) else _Opened(row)}
        encoder = open_encoder(self.model.tokenizer, self.template, self.model.slots, processors, 10**9)
        if row.answer is not None:
            turns.append(Turn("assistant", escape_marks(row.answer)))
        sample = Sample(row.where, turns, [Media(name=str(i)) for i in range(len(row.pictures))], where=row.where)
        rng = random.Random(0)
        return encoder.prompt(sample, rng) if row.answer is None else encoder.example(sample, rng)

    # ---- the whole text as given ----

    def _raw(self, row: Row) -> Example:
        """BOS, then each piece between places tokenised alone, special tokens in it taken as such (reference 1.10)."""
        tokenizer = self.model.tokenizer
        bos = tokenizer.bos_token_id if self.template.serving.bos else None
        ids = [] if bos is None else [int(bos)]
        for number, piece in enumerate(row.text.split(PLACE)):
            if number:
                ids += [IMAGE_SLOT] * self.model.slots["image"]
            ids += self._ids(piece)
        learned: list[int] = []
        if row.answer is not None:
            learned = self._ids(row.answer + self.template.roles["assistant"].after)
        return Example(
            input_ids=torch.tensor(ids + learned, dtype=torch.long),
            labels=torch.tensor([IGNORE] * len(ids) + learned, dtype=torch.long),
            images=list(row.pictures),
            audios=[],
            sample=Sample(row.where, [Turn("user", row.text)], where=row.where),
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.model.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


class _Opened:
    """A processor for pictures that were opened before, named by their number in the row."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def __call__(self, media: Media, rng: random.Random) -> Tensor:
        return self.row.pictures[int(media.name)]


class _OpenedWithFrame(_Opened):
    """The same where the frames of some were changed."""

    def open(self, media: Media, rng: random.Random, boxes: Sequence[Any] = ()) -> tuple[Tensor, Geometry]:
        """The picture, and how it was laid into what the model sees."""
        return self(media, rng), self.row.geometries[int(media.name)] or WHOLE


def rows_of(images: Any, texts: str | Sequence[str], lengths: Sequence[int] | None = None) -> list[Row]:
    """Texts with their pictures: (N, 3, S, S) or a list, one a text (or a list a text); (N, L, 3, S, S) for several.

    One text for N pictures is asked of each, unless it has N places itself. `lengths` says how many of the L pictures
    of a row count. Raises DataError if the numbers do not fit.
    """
    groups = _groups(images, lengths)
    if isinstance(texts, str):
        places = max(texts.count(PLACE), count_marks(texts, IMAGE_MARK))
        if groups is not None and places > 1 and len(groups) == places and all(len(g) == 1 for g in groups):
            groups = [tuple(p for g in groups for p in g)]
        texts = [texts] * (1 if groups is None else len(groups))
    texts = list(texts)
    if groups is None:
        groups = [()] * len(texts)
    if len(groups) == 1 and len(texts) > 1:
        groups = groups * len(texts)
    if len(groups) != len(texts):
        raise DataError(f"{len(texts)} text(s) came with {len(groups)} picture(s) or lists of pictures; give one each")
    return [Row(text, group, where=f"row {i}") for i, (text, group) in enumerate(zip(texts, groups, strict=True))]


def _groups(images: Any, lengths: Sequence[int] | None) -> list[tuple[Tensor, ...]] | None:
    if images is None:
        return None
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images[None]
    groups = [tuple(item) if _is_many(item) else (item,) for item in images]
    if lengths is not None:
        if len(lengths) != len(groups):
            raise DataError(f"lengths has {len(lengths)} numbers, but there are {len(groups)} rows of pictures")
        groups = [group[: int(n)] for group, n in zip(groups, lengths, strict=True)]
    for picture in (p for group in groups for p in group):
        if not isinstance(picture, Tensor):
            raise DataError(
                f"a picture of type {type(picture).__name__} was given; make it a tensor with vis_processors['eval']"
            )
    return groups


def _is_many(item: Any) -> bool:
    return isinstance(item, list | tuple) or (isinstance(item, Tensor) and item.ndim == 4)

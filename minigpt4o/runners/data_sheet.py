"""Draw samples of data sets and keep what the model will get of each: pictures, sounds, tokens, labels, losses."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minigpt4o.common.errors import CheckpointError, ConfigError, SkipSample
from minigpt4o.common.nodes import DatasetSpec
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import Example
from minigpt4o.conversation.encode import MAX_CONTEXT_LEN, SampleEncoder
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.objects import cut_boxes, lifted, written
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.conversation.sample import MediaKind, Sample
from minigpt4o.conversation.template import Segment, load_template
from minigpt4o.datasets.order import permute
from minigpt4o.datasets.prepare.walk import drawn
from minigpt4o.models.outline import Outline, config_of, outline, places_of
from minigpt4o.runners.build import PROCESSOR_FIELDS, answer_room, positions_of
from minigpt4o.runners.data_sheet_media import Heard, Pictured, heard, pictured
from minigpt4o.runners.data_sheet_tokens import Piece, Words, pieces_of

LOOK_ON = 20  # so many samples more, at least, are looked at for one that cannot be used
BAD_SHOWN = 3  # of one data set
_PLAIN: dict[MediaKind, str] = {"image": "blip2_image_eval", "audio": "log_mel"}
_NO_LIMIT = 1_000_000_000


@dataclass
class Look:
    """One sample of the sheet."""

    dataset: str
    split: str
    index: int
    id: str = ""
    where: str = ""
    language: str = ""
    reason: str = ""  # why it cannot be used; "" = it can
    detail: str = ""
    turns: list[tuple[str, str]] = field(default_factory=list)  # (role, text) of one that cannot be used
    pieces: list[Piece] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)  # accepted when scoring
    pictures: list[Pictured] = field(default_factory=list)
    sounds: list[Heard] = field(default_factory=list)
    truncated: int = 0
    prompt: bool = False  # only what is sent in an evaluation, the answer not shown

    def counts(self) -> dict[str, int]:
        """Places of the row: tokens of text, those of them that are learned, places of pictures and of sounds."""
        sized = [(piece.kind, piece.learned, len(piece.ids)) for piece in self.pieces]
        media = {kind: sum(n for k, _, n in sized if k == kind) for kind in ("image", "audio")}
        text = sum(n for k, _, n in sized if k not in media)
        return {"text": text, "learned": sum(n for _, learned, n in sized if learned), **media}


@dataclass
class SetSheet:
    """What was drawn of one split of one data set."""

    spec: DatasetSpec
    split: str
    total: int
    good: list[Look] = field(default_factory=list)
    bad: list[Look] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    looked: int = 0
    plain: dict[str, str] = field(default_factory=dict)  # kind of medium -> plain processor that stands in for none

    @property
    def notes(self) -> list[str]:
        """What a reader must know to trust the pictures and sounds."""
        media = {"image": any(s.pictures for s in self.good), "audio": any(s.sounds for s in self.good)}
        lacks = [(kind, name) for kind, name in self.plain.items() if media[kind]]
        return [f"no {PROCESSOR_FIELDS[kind]} is chosen, so {name} opened the {kind}s" for kind, name in lacks]


@dataclass(frozen=True)
class Reading:
    """How rows are cut: by the model's own tokenizer, or into words if there is none."""

    outline: Outline
    exact: bool  # tokens of the model's tokenizer; else words
    sized: bool  # the places of media are the model's; else one for each
    note: str  # why not, or which tokenizer


def open_reading(model: Part | None) -> Reading:
    """The tokenizer, template and places of a configuration's model, as far as they are here; no weights are read."""
    if model is None or not model.name:
        note = "no model was named, so texts stand in the template `plain` and are cut into words"
        return Reading(_in_words("plain", None), False, False, note)
    try:
        found = outline(model)
    except (ConfigError, CheckpointError) as error:
        why = str(error).splitlines()[0]
    else:
        name = type(found.tokenizer).__name__
        return Reading(found, True, True, f"{name} of {len(found.tokenizer):,} words")
    config = config_of(model)
    if not hasattr(config, "template"):
        return Reading(_in_words("plain", None), False, False, f"cut into words: {why}")
    try:
        slots = places_of(config) if hasattr(config, "encoders") else None
    except ConfigError:
        slots = None
    note = f"the tokenizer is not here, so texts are cut into words ({why})"
    return Reading(_in_words(config, slots), False, slots is not None, note)


def _in_words(config: Any, slots: dict[str, int] | None) -> Outline:
    from minigpt4o.models.base import conversation_of

    template = load_template(config) if isinstance(config, str) else conversation_of(config)
    return Outline(Words(template), template, slots or {"image": 1, "audio": 1}, _NO_LIMIT, config, None)


def draw_set(spec: DatasetSpec, split: str, builder: Any, reading: Reading, count: int, seed: int) -> SetSheet:
    """`count` usable samples drawn by the seed, and those that could not be used.

    If all were usable, twice as many more (20 at least) are looked at for one that is not.
    """
    sheet = SetSheet(spec, split, len(builder))
    encoder = _encoder(spec, split, reading, sheet.plain)
    if not len(builder):
        return sheet
    order = permute(f"show/{seed}", 0, len(builder))
    for number in range(min(len(builder), count + max(2 * count, LOOK_ON))):
        wanted = len(sheet.good) < count
        if not wanted and sheet.bad:
            break
        look = _look(Look(spec.name, split, order(number)), builder, encoder, seed, wanted)
        sheet.looked += 1
        if look.reason:
            sheet.reasons[look.reason] += 1
            sheet.bad += [look] if len(sheet.bad) < BAD_SHOWN else []
        elif wanted:
            sheet.good.append(look)
    return sheet


def _encoder(spec: DatasetSpec, split: str, reading: Reading, plain: dict[str, str]) -> SampleEncoder:
    """As `build_encoders` makes it, but with plain processors where the data set names none."""
    which, other = ("train", "eval") if split == "train" else ("eval", "train")
    processors = {}
    for kind, key in PROCESSOR_FIELDS.items():
        chosen: Mapping[Any, Part] = getattr(spec, key)
        part = chosen.get(which) or chosen.get(other)
        if part is None:
            part = Part("processor", _PLAIN[kind])  # type: ignore[index]
            plain[kind] = part.name
        processors[kind] = registry.build(part)
    about = reading.outline
    return open_encoder(
        about.tokenizer,
        about.conversation,
        about.slots,
        processors,
        about.max_txt_len,
        positions=positions_of(about),
        answer_room=0 if split == "train" else answer_room(spec),
        max_context_len=getattr(about.config, "max_context_len", MAX_CONTEXT_LEN) if reading.exact else _NO_LIMIT,
    )


def _look(look: Look, builder: Any, encoder: SampleEncoder, seed: int, whole: bool) -> Look:
    """One sample; with `whole` everything the page shows of it, else only whether it can be used."""
    sample = drawn(builder, look.index)
    if isinstance(sample, SkipSample):
        look.reason, look.detail = sample.reason, sample.detail
        return look
    look.id, look.where, look.language = sample.id, sample.where, sample.language
    look.prompt = look.split != "train"
    rng = random.Random(f"{seed}/{look.index}")
    try:
        example = encoder.prompt(sample, rng) if look.prompt else encoder.example(sample, rng)
        if whole:
            _fill(look, sample, example, encoder)
    except SkipSample as skip:
        look.reason, look.detail = skip.reason, skip.detail
        look.turns = [(turn.role, unescape_marks(turn.text)) for turn in sample.turns]
    return look


def _fill(look: Look, sample: Sample, example: Example, encoder: SampleEncoder) -> None:
    segments = _segments(sample, example, encoder, look.prompt)
    look.pieces = pieces_of(example, encoder.tokenizer, encoder.slots, segments)
    if look.prompt:  # earlier answers are only read
        look.pieces = [replace(piece, learned=False) for piece in look.pieces]
    look.truncated = example.truncated
    plain = written(sample)
    last = plain.turns[-1] if plain.turns else None
    truth = [last.text] if last is not None and last.role == "assistant" else []
    if look.prompt or len(sample.answers) > 1:
        look.answers = list(dict.fromkeys(unescape_marks(text) for text in sample.answers or truth))
    look.pictures = _pictures(sample, example, encoder)
    heard_by = encoder.processors.get("audio")
    look.sounds = [heard(m, t, heard_by) for m, t in zip(sample.audios, example.audios, strict=True)]


def _segments(sample: Sample, example: Example, encoder: SampleEncoder, prompt: bool) -> list[Segment]:
    """What the row was cut from: the turns with their boxes in the frame that the model sees."""
    turns = sample.turns
    if prompt and turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    asked = replace(sample, turns=turns, boxes=cut_boxes(sample, turns))
    seen = written(lifted(asked) if example.geometries else asked, example.geometries or None)
    template = encoder.template.serving if prompt else encoder.template
    return template.render(seen.turns, open_answer=prompt)


def _pictures(sample: Sample, example: Example, encoder: SampleEncoder) -> list[Pictured]:
    boxes = list(enumerate(lifted(sample).boxes, start=1))
    found = []
    for number, (media, tensor) in enumerate(zip(sample.images, example.images, strict=True)):
        own = [(n, box) for n, box in boxes if box.image == number]
        geometry = example.geometries[number] if example.geometries else None
        found.append(pictured(media, tensor, encoder.processors["image"], own, geometry, sample.rounding))
    return found


def record(sheet: SetSheet) -> dict[str, Any]:
    """The sheet for programs: texts, labels and counts; pictures and sounds are left out."""
    return {
        "dataset": sheet.spec.name,
        "split": sheet.split,
        "samples": sheet.total,
        "looked_at": sheet.looked,
        "skipped": dict(sheet.reasons),
        "shown": [_record(look) for look in sheet.good],
        "bad": [_record(look) for look in sheet.bad],
    }


def _record(look: Look) -> dict[str, Any]:
    said: dict[str, Any] = {"index": look.index, "id": look.id, "where": look.where}
    if look.reason:
        return {**said, "reason": look.reason, "detail": look.detail}
    pieces = [
        {"kind": piece.kind, "text": piece.text, "learned": piece.learned, "places": len(piece.ids)}
        for piece in look.pieces
    ]
    return {**said, **look.counts(), "truncated": look.truncated, "answers": look.answers, "pieces": pieces}

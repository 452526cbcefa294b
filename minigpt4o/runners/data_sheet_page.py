"""The contact sheet as one HTML file: samples as the model gets them, token by token; nothing in it reaches out."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from minigpt4o.common.files import write_bytes
from minigpt4o.conversation.sample import Box
from minigpt4o.runners.data_sheet import Look, Reading, SetSheet
from minigpt4o.runners.data_sheet_media import Heard, Outlined, Pictured
from minigpt4o.runners.data_sheet_tokens import Piece
from minigpt4o.runners.report_media import Picture

_FRAME = Path(__file__).with_name("report.html")
_INNER = Path(__file__).with_name("data_sheet.html")
BUDGET = 24_000_000  # characters of pictures and sounds in one page; later samples go without
SHORT_SIDE = 160  # a smaller picture is enlarged pixel by pixel
LONGEST_TEXT = 4000  # characters of a turn or a list of answers that cannot be used
_COLOURS = 6
_NAMES = {"image": "picture", "audio": "sound"}


def write_sheet(path: Path, title: str, sheets: Sequence[SetSheet], reading: Reading, seed: int) -> None:
    """Write the page as a whole."""
    write_bytes(path, page(title, sheets, reading, seed).encode("utf-8", "xmlcharrefreplace"))


def page(title: str, sheets: Sequence[SetSheet], reading: Reading, seed: int) -> str:
    """The whole page."""
    left = BUDGET
    parts = []
    for sheet in sheets:
        cards = []
        for look in sheet.good:
            card = _card(look, reading, with_media=left > 0)
            left -= len(card)
            cards.append(card)
        name = f"{sheet.spec.name} · {sheet.split}"
        notes = "".join(f'<p class="soft">{text(note)}</p>' for note in sheet.notes)
        parts.append(f"<h3>{text(name)}</h3>{notes}{''.join(cards) or _none(sheet)}")
    sections = [("sets", "Data sets", _sets(sheets)), ("samples", "Samples", _legend(reading) + "".join(parts))]
    sections.append(("skipped", "Skipped", _skipped(sheets)))
    links = "".join(f'<a href="#{id}">{name}</a>' for id, name, _ in sections)
    inner = "".join(f'<section id="{id}"><h2>{name}</h2>{body}</section>' for id, name, body in sections)
    body = Template(_INNER.read_text(encoding="utf-8")).substitute(inner=inner)
    frame = Template(_FRAME.read_text(encoding="utf-8"))
    return frame.substitute(title=text(title), subtitle=_subtitle(sheets, reading, seed), links=links, sections=body)


def text(value: Any) -> str:
    """Words of others as harmless text; signs that cannot be seen, or that turn the line around, as their numbers."""
    return html.escape("".join(c if c == "\n" or not _hidden(c) else _number(c) for c in str(value)), quote=True)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Co")


def _number(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) > 0xFF else f"\\x{ord(letter):02x}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; a head that begins with > stands on the right."""
    head = "".join(f'<th class="n">{text(h[1:])}</th>' if h[:1] == ">" else f"<th>{text(h)}</th>" for h in heads)
    kinds = ["n" if h[:1] == ">" else "about" if h in ("licence", "source", "skipped") else "" for h in heads]
    lines = ("".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _subtitle(sheets: Sequence[SetSheet], reading: Reading, seed: int) -> str:
    about = reading.outline
    words = [f"{sum(len(s.good) for s in sheets)} samples, drawn with seed {seed}"]
    words += [f"template {about.conversation.name} ({about.conversation.profile})", reading.note]
    if reading.exact:
        positions = getattr(about.llm, "max_positions", None)
        words += [f"max_txt_len {about.max_txt_len}"] + ([f"{positions:,} positions"] if positions else [])
    return f'<p class="soft">{text(" · ".join(words))}</p>'


def _sets(sheets: Sequence[SetSheet]) -> str:
    told = [key for key in ("licence", "source") if any(key in sheet.spec.about for sheet in sheets)]
    rows = []
    for sheet in sheets:
        about: Mapping[str, str] = {str(key): value for key, value in sheet.spec.about.items()}
        reasons = ", ".join(f"{reason} {count}" for reason, count in sheet.reasons.most_common())
        skipped = f"{sum(sheet.reasons.values())} of {sheet.looked} looked at" + (f": {reasons}" if reasons else "")
        rows.append(
            [f"<b>{text(sheet.spec.name)}</b>", text(sheet.split), text(sheet.spec.builder.name)]
            + [f"{sheet.total:,}", str(len(sheet.good)), text(skipped)]
            + [text(about.get(key, "")) for key in told]
        )
    return _table(("data set", "split", "builder", ">samples", ">shown", "skipped", *told), rows)


def _legend(reading: Reading) -> str:
    samples = [Piece("text", text="said"), Piece("control", text="the template's"), Piece("text", True, "learned")]
    samples += [Piece("special", text="special token")] if reading.exact else []
    samples += [Piece("image", ids=[0] * reading.outline.slots.get("image", 1))]
    shown = "".join(f'<span class="row">{_piece(piece, reading)}</span>' for piece in samples)
    unit = "token" if reading.exact else "word"
    more = f"A thin line ends each {unit}. In an evaluation (val, test) what is shown is sent, and nothing is learned."
    return f'<div class="legend">{shown}</div><p class="soft">{text(more)}</p>'


def _none(sheet: SetSheet) -> str:
    what = "the split is empty" if not sheet.total else f"none of the {sheet.looked} samples looked at can be used"
    return f'<p class="problem">{text(what)}</p>'


# ---- one sample ----


def _card(look: Look, reading: Reading, with_media: bool) -> str:
    media = ""
    if with_media:
        media = "".join(map(_views, look.pictures)) + "".join(map(_sound, look.sounds))
    elif look.pictures or look.sounds:
        media = '<p class="problem">media are left out to keep the page small; ask for fewer samples</p>'
    row = "".join(_piece(piece, reading) for piece in look.pieces)
    answers = " | ".join(look.answers)[:LONGEST_TEXT]
    told = f'<div class="answers">accepted answers: {text(answers)}</div>' if answers else ""
    if look.truncated:
        what = "tokens of old turns" if look.prompt else "learned tokens"
        told += f'<div class="answers">cut off: {look.truncated} {what}</div>'
    words = f'<div><div class="row">{row}</div>{told}</div>'
    body = f'<div class="two"><div>{media}</div>{words}</div>' if media else f'<div class="two alone">{words}</div>'
    return f'<article class="sample">{_head(look, _counts(look, reading))}{body}</article>'


def _head(look: Look, end: str) -> str:
    words = [f"<b>{text(look.id or f'[{look.index}]')}</b>", f"<span>index {look.index}</span>"]
    words += [f"<span>{text(look.where)}</span>"] if look.where else []
    words += [f"<span>{text(look.language)}</span>"] if look.language else []
    return f'<header>{"".join(words)}<span class="end">{text(end)}</span></header>'


def _counts(look: Look, reading: Reading) -> str:
    counts = look.counts()
    unit = "tokens" if reading.exact else "words"
    told = f"{counts['text']} {unit}, {counts['learned']} learned" if not look.prompt else f"{counts['text']} {unit}"
    for kind, name in _NAMES.items():
        number = sum(piece.kind == kind for piece in look.pieces)
        if number and reading.sized:
            told += f" · {number} {name}{'s' if number > 1 else ''} in {counts[kind]} places"
        elif number:
            told += f" · {number} {name}{'s' if number > 1 else ''}"
    return told


def _piece(piece: Piece, reading: Reading) -> str:
    if piece.kind in _NAMES:
        size = f" × {len(piece.ids)}" if reading.sized else ""
        return f'<span class="t-medium t-{piece.kind}">{_NAMES[piece.kind]}{size}</span>'
    classes = [f"t-{piece.kind}"] if piece.kind != "text" else []
    classes += ["t-learned"] if piece.learned else []
    shown = text(piece.text).replace("\n", "↵\n")
    ids = f' title="{" ".join(map(str, piece.ids))}"' if reading.exact else ""
    return f'<span class="{" ".join(classes)}"{ids}>{shown}</span>'


def _views(pair: Pictured) -> str:
    model = [(n, box.shown) for n, box in zip(pair.numbers, pair.boxes, strict=True) if box.shown is not None]
    original = [(n, box.original) for n, box in zip(pair.numbers, pair.boxes, strict=True)]
    listed = "".join(map(_box_line, pair.numbers, pair.boxes))
    boxes = f'<ol class="boxes">{listed}</ol>' if listed else ""
    return f'<div class="views">{_figure(pair.shown, model, "as the model sees it")}' + (
        f"{_figure(pair.original, original, 'original')}</div>{boxes}"
    )


def _box_line(number: int, box: Outlined) -> str:
    x1, y1, x2, y2 = box.original.xyxy
    width, height = box.original.image_size
    label = f"{box.original.label}: " if box.original.label else ""
    seen = box.text if box.shown is not None else "not in the model's sight"
    told = f"{label}{seen}, from {x1:g}, {y1:g}, {x2:g}, {y2:g} of {width} x {height}"
    return f'<li value="{number}">{text(told)}</li>'


def _figure(shown: Picture, boxes: Sequence[tuple[int, Box]], caption: str) -> str:
    if shown.problem:
        return f'<div class="problem">{text(shown.problem)}</div>'
    tiny = " tiny" if max(shown.width, shown.height) < SHORT_SIDE else ""
    marks = "".join(_mark(shown, number, box) for number, box in boxes)
    return (
        f'<figure><div class="shot{tiny}"><svg viewBox="0 0 {shown.width} {shown.height}"><image href="{shown.uri}" '
        f'width="{shown.width}" height="{shown.height}" preserveAspectRatio="none"/>{marks}</svg></div>'
        f"<figcaption>{caption}, {shown.width} x {shown.height}</figcaption></figure>"
    )


def _mark(shown: Picture, number: int, box: Box) -> str:
    """A numbered rectangle in the picture's own pixels."""
    x1, y1, x2, y2 = box.xyxy
    sx, sy = shown.width / max(box.image_size[0], 1), shown.height / max(box.image_size[1], 1)
    side, colour = max(shown.width, shown.height), f"k{(number - 1) % _COLOURS}"
    rectangle = (
        f'<rect class="box {colour}" x="{x1 * sx:.2f}" y="{y1 * sy:.2f}" width="{max(x2 - x1, 0) * sx:.2f}" '
        f'height="{max(y2 - y1, 0) * sy:.2f}" stroke-width="{side / 90:.2f}"/>'
    )
    top = min(max(y1 * sy, side / 14), shown.height - 1)
    return rectangle + (
        f'<text class="{colour}" x="{max(x1 * sx, 0) + side / 90:.2f}" y="{top:.2f}" font-size="{side / 14:.2f}" '
        f'stroke-width="{side / 50:.2f}">{number}</text>'
    )


def _sound(one: Heard) -> str:
    if one.sound.problem:
        return f'<div class="problem">{text(one.sound.problem)}</div>'
    return (
        f'<div class="sound"><img src="{one.sound.spectrum}" alt="log-mel frames">'
        f'<audio controls preload="metadata" src="{one.sound.uri}"></audio>'
        f"<figcaption>{text(one.note)}</figcaption></div>"
    )


# ---- what cannot be used ----


def _skipped(sheets: Sequence[SetSheet]) -> str:
    cards = [_bad(look) for sheet in sheets for look in sheet.bad]
    looked = sum(sheet.looked for sheet in sheets)
    skipped = sum(sum(sheet.reasons.values()) for sheet in sheets)
    told = f"{skipped} of {looked} samples looked at cannot be used" + (f"; {len(cards)} are shown." if cards else ".")
    return f'<p class="soft">{text(told)} `data check` looks at all of them.</p>{"".join(cards)}'


def _bad(look: Look) -> str:
    turns = "".join(
        f'<div class="turn"><b>{text(role)}</b>{text(words[:LONGEST_TEXT])}</div>' for role, words in look.turns
    )
    why = f'<div class="why"><b>{text(look.reason)}</b> {text(look.detail[:LONGEST_TEXT])}</div>'
    return f'<article class="sample bad">{_head(look, f"{look.dataset} · {look.split}")}{why}{turns}</article>'

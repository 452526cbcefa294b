"""A conversation as JSON: its turns, its files as base64, how it was answered and by which model."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.boxes import BoxError, box_text
from minigpt4o.conversation.sample import Box, Media
from minigpt4o.models.generate import check_decoding
from minigpt4o.serve.limits import ChatError, Note, ensure_count, ensure_text

if TYPE_CHECKING:
    from minigpt4o.serve.chat import ChatSession, Exchange

FORMAT, VERSION = "minigpt4o-chat", 1
MAX_TURNS = 10_000
MAX_ANSWER = 1_000_000  # characters
MAX_BOXES = 100  # of one turn
MAX_BEAMS = 16  # a file may not ask for more work than that
_OTHER_MODEL = Note("This chat was held with another model; it goes on with this one.", "other_model")


def written(session: ChatSession) -> str:
    """The JSON text of a conversation."""
    turns = [
        {
            "text": exchange.text,
            "images": [_packed(media) for media in exchange.images],
            "audios": [_packed(media) for media in exchange.audios],
            "answer": exchange.answer,
            "attempt": exchange.attempt,
            "boxes": [[*box.xyxy, *box.image_size, box.image] for box in exchange.boxes],
        }
        for exchange in session.exchanges
    ]
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"fingerprint": session.engine.fingerprint, "template": session.encoder.template.name},
        "decoding": asdict(session.decoding),
        "turns": turns,
    }
    return json.dumps(tree, ensure_ascii=False, indent=1)


def read(text: str | bytes, session: ChatSession) -> tuple[list[Exchange], Decoding, list[Note]]:
    """The exchanges, the decoding and notes for the person. Raises ChatError if the session may not hold them."""
    limits = session.limits
    most = limits.max_chat_files * limits.max_file_mb * 2**20 * 1.4 + 50 * 2**20
    if len(text) > most:
        mb = f"{len(text) / 2**20:.0f}"
        raise ChatError(f"This file is too large for a chat ({mb} MB).", "large_chat", n=mb)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChatError("This file is no saved chat: it is not JSON.", "no_json") from error
    if not isinstance(tree, Mapping) or tree.get("format") != FORMAT:
        raise ChatError("This file is no saved chat.", "no_saved_chat")
    if tree.get("version") != VERSION:
        told = f"This chat was saved in another form (version {tree.get('version')!r}; known is {VERSION})."
        raise ChatError(told, "other_version", known=VERSION)
    turns = tree.get("turns")
    if not isinstance(turns, list) or len(turns) > MAX_TURNS:
        raise _damaged("no turns, or far too many")
    exchanges: list[Exchange] = []
    for number, turn in enumerate(turns, 1):
        exchanges.append(_exchange(turn, f"turn {number}", session, exchanges))
    model = tree.get("model")
    same = isinstance(model, Mapping) and model.get("fingerprint") == session.engine.fingerprint
    return exchanges, _decoding(tree.get("decoding")), [] if same else [_OTHER_MODEL]


def _packed(media: Media) -> dict[str, str]:
    return {"name": str(media), "data": base64.b64encode(media.read()).decode("ascii")}


def _exchange(turn: Any, where: str, session: ChatSession, before: Sequence[Exchange]) -> Exchange:
    from minigpt4o.serve.chat import Exchange

    if not isinstance(turn, Mapping):
        raise _damaged(where)
    words = {key: turn.get(key, "") for key in ("text", "answer")}
    attempt = turn.get("attempt", 0)
    if not all(isinstance(word, str) for word in words.values()) or type(attempt) is not int or attempt < 0:
        raise _damaged(f"{where}: its words")
    ensure_text(words["text"], session.limits)
    ensure_text(words["answer"], replace(session.limits, max_text_chars=MAX_ANSWER))
    files = {key: _unpacked(turn.get(key, []), f"{where}, {key}", session) for key in ("images", "audios")}
    already = sum(len(e.images) + len(e.audios) for e in before)
    ensure_count(len(files["images"]) + len(files["audios"]), already, session.limits)
    session.ensure_kind("image", files["images"])
    session.ensure_kind("audio", files["audios"])
    pictures = sum(len(e.images) for e in before) + len(files["images"])
    boxes = _boxes(turn.get("boxes", []), where, pictures)
    return Exchange(words["text"], files["images"], files["audios"], words["answer"], attempt, boxes)


def _boxes(rows: Any, where: str, pictures: int) -> list[Box]:
    """Boxes of `[x1, y1, x2, y2, width, height, picture]`."""
    damaged = _damaged(f"{where}: its boxes")
    if not isinstance(rows, list) or len(rows) > MAX_BOXES:
        raise damaged
    found = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 7 or not all(type(value) in (int, float) for value in row):
            raise damaged
        if not all(type(value) is int for value in row[4:]) or not 0 <= row[6] < pictures:
            raise damaged
        box = Box((row[0], row[1], row[2], row[3]), (row[4], row[5]), image=row[6])
        try:
            box_text(box)
        except BoxError as error:
            raise damaged from error
        found.append(box)
    return found


def _unpacked(files: Any, where: str, session: ChatSession) -> list[Media]:
    if not isinstance(files, list):
        raise _damaged(where)
    found = []
    for file in files:
        name, data = (file.get(key) for key in ("name", "data")) if isinstance(file, Mapping) else (None, None)
        if not isinstance(name, str) or not isinstance(data, str):
            raise _damaged(where)
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _damaged(f"{where}: a file is not base64") from error
        if len(content) > session.limits.max_file_mb * 2**20:
            most = f"{session.limits.max_file_mb:g}"
            raise ChatError(f"A file of this saved chat is larger than {most} MB ({where}).", "large_inside", most=most)
        found.append(Media(data=content, name=name.replace("\\", "/").rpartition("/")[2][-80:] or "file"))
    return found


def _decoding(values: Any) -> Decoding:
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,)}
    known = {field.name: kinds[str(field.type)] for field in fields(Decoding)}
    if not isinstance(values, Mapping) or not set(values) <= set(known):
        raise _damaged("decoding")
    for name, value in values.items():
        if type(value) not in known[name]:
            raise _damaged(f"decoding: {name} is {value!r}")
    decoding = Decoding(**values)
    try:
        check_decoding(decoding)
    except ConfigError as error:
        told = f"This saved chat cannot go on as it was: {error}."
        raise ChatError(told, "bad_settings", detail=str(error)) from error
    if not 1 <= decoding.num_beams <= MAX_BEAMS:
        told = f"This saved chat asks for {decoding.num_beams} beams; at most {MAX_BEAMS} are searched."
        raise ChatError(told, "many_beams", n=decoding.num_beams, most=MAX_BEAMS)
    return decoding


def _damaged(where: str) -> ChatError:
    return ChatError(f"This saved chat is damaged ({where}).", "damaged", where=where)

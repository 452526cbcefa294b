"""`messages` of a request -> turns and media as the model was trained on them; what a caller types is only words."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt4o.conversation.marks import escape_marks
from minigpt4o.conversation.sample import MARKS, Media, MediaKind, Role, Sample, Turn
from minigpt4o.serve.api.errors import ApiError, invalid
from minigpt4o.serve.limits import ChatError, Limits, ensure_count, ensure_text
from minigpt4o.serve.parts import laid_out

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
AUDIO_NAMES = ("wav", "mp3", "flac", "ogg")
MAX_MESSAGES = 1000
WHOLE_CHAT = 10  # the words of all messages may be so many times those of one


@dataclass
class Attached:
    """A picture or sound of a message: its bytes, or the address they are to be fetched from."""

    kind: MediaKind
    where: str  # e.g. messages[0].content[1]
    data: bytes | None = None
    url: str = ""

    def media(self) -> Media:
        """Named by its place: what callers call their files is never read."""
        assert self.data is not None, "fetched before it is used"
        return Media(data=self.data, name=self.where)


@dataclass
class Said:
    """One speaker's words and files, in order."""

    role: Role
    pieces: list[str | Attached] = field(default_factory=list)


def read_messages(value: Any, limits: Limits) -> list[Said]:
    """The conversation, with neighbours of one role joined. Raises ApiError naming the place."""
    if not isinstance(value, list) or not value:
        raise invalid("`messages` must be a list of at least one message.", "messages")
    if len(value) > MAX_MESSAGES:
        raise invalid(f"These are {len(value)} messages; at most {MAX_MESSAGES} are taken.", "messages")
    said: list[Said] = []
    for number, message in enumerate(value):
        one = _message(message, f"messages[{number}]", limits)
        if said and said[-1].role == one.role:
            said[-1].pieces += one.pieces
        else:
            said.append(one)
    _check_order(said)
    _check_sums(said, limits)
    return said


def attachments(said: Sequence[Said]) -> list[Attached]:
    """All pictures and sounds, in order."""
    return [piece for one in said for piece in one.pieces if isinstance(piece, Attached)]


def sample_of(said: Sequence[Said], separator: str, system: str) -> Sample:
    """What the model is asked. `separator`: between media and words, `system`: said first if the caller has none."""
    turns = [Turn("system", escape_marks(system))] if system and said[0].role != "system" else []
    turns += [Turn(one.role, _words(one, separator)) for one in said]
    files = attachments(said)
    media = {kind: [file.media() for file in files if file.kind == kind] for kind in MARKS}
    # the same name always: draws come from the seed alone
    return Sample("chat", [*turns, Turn("assistant", "")], media["image"], media["audio"], where="the request")


def _words(said: Said, separator: str) -> str:
    marked = ((MARKS[p.kind], True) if isinstance(p, Attached) else (escape_marks(p), False) for p in said.pieces)
    return laid_out(list(marked), separator)


def _check_order(said: Sequence[Said]) -> None:
    asked = said[1:] if said[0].role == "system" else said
    if any(one.role == "system" for one in asked):
        raise invalid("A system message may only stand at the beginning.", "messages")
    if not asked or asked[0].role != "user":
        raise invalid("The conversation must begin with a message of the user (behind the system's).", "messages")
    if asked[-1].role != "user":
        raise invalid("The last message must be the user's: it is the one that is answered.", "messages")
    if not any(isinstance(piece, Attached) or piece.strip() for piece in asked[-1].pieces):
        raise invalid("The last message is empty; write something, or attach a picture or a sound.", "messages")


def _check_sums(said: Sequence[Said], limits: Limits) -> None:
    longest = WHOLE_CHAT * limits.max_text_chars
    chars = sum(len(piece) for one in said for piece in one.pieces if isinstance(piece, str))
    if chars > longest:
        raise invalid(f"The messages have {chars} characters together; at most {longest} are taken.", "messages")
    try:
        ensure_count(0, len(attachments(said)), limits)
    except ChatError as error:
        raise invalid(str(error), "messages") from error


def _message(message: Any, where: str, limits: Limits) -> Said:
    if not isinstance(message, dict):
        raise invalid(f"{where} must be an object with `role` and `content`.", where)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(ROLES)}.", f"{where}.role", "invalid_value")
    if message.get("tool_calls") or message.get("function_call"):
        raise invalid(f"{where}: this server has no tools.", where, "unsupported_parameter")
    content = message.get("content")
    if isinstance(content, str):
        return Said(ROLES[role], [_text(content, f"{where}.content", limits)])
    if not isinstance(content, list):
        raise invalid(f"{where}.content must be a string or a list of parts.", f"{where}.content")
    parts = [_part(part, f"{where}.content[{i}]", ROLES[role], limits) for i, part in enumerate(content)]
    files = sum(isinstance(part, Attached) for part in parts)
    try:
        ensure_count(files, 0, limits)
        ensure_text("".join(part for part in parts if isinstance(part, str)), limits)
    except ChatError as error:
        raise invalid(str(error), f"{where}.content") from error
    return Said(ROLES[role], parts)


def _text(text: Any, where: str, limits: Limits) -> str:
    if not isinstance(text, str):
        raise invalid(f"{where} must be a string.", where)
    try:
        ensure_text(text, limits)
    except ChatError as error:
        raise invalid(str(error), where, "string_above_max_length") from error
    return text


def _part(part: Any, where: str, role: Role, limits: Limits) -> str | Attached:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" or (kind == "refusal" and role == "assistant"):
        return _text(part.get(kind), f"{where}.{kind}", limits)
    if kind not in ("image_url", "input_audio"):
        raise invalid(f"{where}.type must be text, image_url or input_audio.", f"{where}.type", "invalid_value")
    if role != "user":
        raise invalid(f"{where}: only messages of the user may hold pictures and sounds.", where)
    return _image(part.get(kind), where, limits) if kind == "image_url" else _audio(part.get(kind), where, limits)


def _image(value: Any, where: str, limits: Limits) -> Attached:
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise invalid(f"{where}.image_url.url must be a string.", f"{where}.image_url")
    scheme = url[:16].partition(":")[0].lower()
    if scheme == "data":
        head, comma, data = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise invalid(f"{where}: a data URL must be of the form data:image/png;base64,...", where, "invalid_image")
        return Attached("image", where, _bytes(data, where, limits, "invalid_image"))
    if scheme in ("http", "https"):
        return Attached("image", where, url=url)
    raise invalid(f"{where}.image_url.url must be a data URL, or begin with https://.", where, "invalid_image_url")


def _audio(value: Any, where: str, limits: Limits) -> Attached:
    if not isinstance(value, dict) or not isinstance(value.get("data"), str):
        raise invalid(f"{where}.input_audio must be an object with `data` (base64) and `format`.", where)
    named = value.get("format")
    if named is not None and named not in AUDIO_NAMES:
        names = ", ".join(AUDIO_NAMES)
        raise invalid(f"{where}.input_audio.format must be one of {names}.", f"{where}.input_audio.format")
    return Attached("audio", where, _bytes(value["data"], where, limits, "invalid_audio"))


def _bytes(text: str, where: str, limits: Limits, code: str) -> bytes:
    """Of base64, refused by its length before it is read."""
    most = limits.max_file_mb * 2**20
    if len(text) * 3 / 4 > most + 3:
        size = len(text) * 3 / 4 / 2**20
        raise invalid(f"{where} has {size:.1f} MB; please keep files under {limits.max_file_mb:g} MB.", where, code)
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise invalid(f"{where} is not valid base64.", where, code) from error


def refused(file: Attached, error: Exception) -> ApiError:
    """What is said of a file that cannot be used."""
    return invalid(str(error), file.where, f"invalid_{file.kind}")

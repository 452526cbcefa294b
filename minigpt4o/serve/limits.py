"""What a person may send: counts, sizes and kinds are checked here by content, before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minigpt4o.common.errors import Minigpt4oError, SkipSample
from minigpt4o.conversation.sample import Media, MediaKind

# Formats that are opened; Pillow knows many more, some of which start other programs.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
AUDIO_FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")


class ChatError(Minigpt4oError):
    """Something the person in the chat can mend; the text is meant for them and names no path of the server.

    `kind` and `values` say the same without words: a page tells it in its own language by them.
    """

    def __init__(self, text: str, kind: str = "", **values: object) -> None:
        super().__init__(text)
        self.kind, self.values = kind, values


@dataclass(frozen=True)
class Note:
    """A sentence beside an answer; `kind` and `values` as those of ChatError."""

    text: str
    kind: str = ""
    values: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


class EngineBusy(ChatError):
    """Too many requests wait already; the same request may be taken a little later."""


_BOMB = (2**31, 2**31)  # what Pillow does not even open

_REASONS: Mapping[str, str] = {
    "unreadable_image": "The picture cannot be read",
    "image_too_large": "The picture is too large",
    "extreme_aspect": "The picture is too long and thin",
    "unreadable_audio": "The sound cannot be read",
    "short_audio": "The sound is too short",
    "audio_too_long": "The sound is too long",
    "forbidden_type": "This kind of file is not accepted",
    "missing_file": "The file is not there",
    "read_error": "The file cannot be read",
    "bad_text": "The text cannot be used",
    "bad_box": "The box cannot be used",
    "media_mismatch": "These files do not fit this model",
    "too_long": "This is too long",
}


def explain(problem: SkipSample) -> ChatError:
    """What cannot be used, for the person in the chat."""
    what = _REASONS.get(problem.reason, "This cannot be used")
    return ChatError(f"{what} ({problem.detail}).", problem.reason, detail=problem.detail)


@dataclass(frozen=True)
class Limits:
    """The largest message that is taken."""

    max_text_chars: int = 20_000
    max_files: int = 8  # of one message
    max_chat_files: int = 32  # of one conversation
    max_file_mb: float = 20.0
    max_image_pixels: int = 25_000_000
    max_audio_seconds: float = 60.0


def ensure_text(text: str, limits: Limits) -> None:
    """Raises ChatError if the text is too long or is no text."""
    if len(text) > limits.max_text_chars:
        raise ChatError(
            f"This text has {len(text)} characters; please keep it to {limits.max_text_chars}.",
            "long_text",
            n=len(text),
            most=limits.max_text_chars,
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ChatError("This text holds characters that are broken; please type it again.", "broken_text") from error


def ensure_count(new: int, already: int, limits: Limits) -> None:
    """Raises ChatError if a message, or the conversation with it, has too many files."""
    if new > limits.max_files:
        told = f"These are {new} files; please send at most {limits.max_files} at a time."
        raise ChatError(told, "many_files", n=new, most=limits.max_files)
    if new + already > limits.max_chat_files:
        raise ChatError(
            f"This chat would then hold {new + already} files and may hold {limits.max_chat_files};"
            " please start a new chat.",
            "full_chat",
            n=new + already,
            most=limits.max_chat_files,
        )


def read_media(path: str | Path, limits: Limits) -> tuple[MediaKind, Media]:
    """A file a person sent, in memory under its own name, and what it is. Raises ChatError if it cannot be taken."""
    file = Path(path)
    name = file.name[-80:]
    try:
        if not file.is_file():
            raise ChatError(f"{name}: there is no such file.", "no_file", name=name)
        size = file.stat().st_size
        if size > limits.max_file_mb * 2**20:
            mb, most = f"{size / 2**20:.1f}", f"{limits.max_file_mb:g}"
            told = f"{name} has {mb} MB; please keep files under {most} MB."
            raise ChatError(told, "large_file", name=name, n=mb, most=most)
        media = Media(data=file.read_bytes(), name=name)
    except OSError as error:
        raise ChatError(f"{name} cannot be read: {error.strerror}.", "lost_file", name=name) from error
    return ensure_medium(media, limits), media


def sort_media(paths: Sequence[str | Path], limits: Limits, already: int = 0) -> tuple[list[Media], list[Media]]:
    """Pictures and sounds among files a person sent, by content. Raises ChatError for the first refused."""
    ensure_count(len(paths), already, limits)
    found = [read_media(path, limits) for path in paths]
    return [m for kind, m in found if kind == "image"], [m for kind, m in found if kind == "audio"]


def ensure_medium(media: Media, limits: Limits) -> MediaKind:
    """What a file in memory is, by its content. Raises ChatError if it is neither, or larger than allowed."""
    data = media.data if media.data is not None else media.read()
    if not data:
        raise ChatError(f"{media} is empty.", "empty_file", name=str(media))
    size = _image_size(data)
    if size is not None:
        most = f"{limits.max_image_pixels / 1e6:g}"
        if size == _BOMB:
            told = f"{media} has far too many pixels; please keep pictures under {most} million pixels."
            raise ChatError(told, "bomb", name=str(media), most=most)
        if size[0] * size[1] > limits.max_image_pixels:
            raise ChatError(
                f"{media} has {size[0]} x {size[1]} pixels; please keep pictures under {most} million pixels.",
                "many_pixels",
                name=str(media),
                width=size[0],
                height=size[1],
                most=most,
            )
        return "image"
    seconds = _audio_seconds(data)
    if seconds is None:
        kinds = ", ".join([*IMAGE_FORMATS, "WAV", "FLAC", "OGG", "MP3"])
        told = f"{media} is no picture or sound that can be read ({kinds})."
        raise ChatError(told, "no_medium", name=str(media), kinds=kinds)
    if seconds > limits.max_audio_seconds:
        raise ChatError(
            f"{media} lasts {seconds:.0f} seconds; please keep sounds under {limits.max_audio_seconds:g} seconds.",
            "long_sound",
            name=str(media),
            n=f"{seconds:.0f}",
            most=f"{limits.max_audio_seconds:g}",
        )
    return "audio"


def _image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the header alone; None if this is no picture."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the caller has a limit of its own
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                return image.size
    except Image.DecompressionBombError:
        return _BOMB
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for what is no picture, or a broken one
        return None


def _audio_seconds(data: bytes) -> float | None:
    """Length by the header alone; None if this is no sound."""
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except (soundfile.SoundFileError, TypeError, ValueError):
        return None
    if info.format not in AUDIO_FORMATS or info.samplerate <= 0:
        return None
    return float(info.frames) / float(info.samplerate)

"""What a harness sends (words, PIL pictures, paths, decoded sounds) -> a `Sample`, as a data set of ours gives it."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.marks import escape_marks, split_at_marks
from minigpt4o.conversation.sample import MARKS, Media, Role, Sample, Turn
from minigpt4o.serve.pictures import as_media

log = logging.getLogger(__name__)

Part = tuple[str, Any]  # "text", "image" or "audio", and the words or whatever holds the medium
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aac", ".opus")


def sample_of(name: str, turns: Sequence[tuple[Role, Sequence[Part]]], separator: str = "") -> Sample:
    """A conversation that waits for its next answer. `separator` stands between media and the words behind them.

    Raises DataError naming the sample for a medium that is none.
    """
    said: list[Turn] = []
    images: list[Media] = []
    audios: list[Media] = []
    for role, parts in turns:
        said.append(Turn(role, _words(parts, separator)))
        for kind, value in parts:
            if kind == "image":
                images.append(_named(name, picture_media, value))
            elif kind == "audio":
                audios.append(_named(name, sound_media, value))
    return Sample(name, said, images, audios, where=name)


def _words(parts: Sequence[Part], separator: str) -> str:
    """The text of a turn with marks for its media; neighbouring texts stand on lines of their own."""
    text, last = "", ""
    for kind, value in parts:
        if kind != "text":
            text += MARKS[kind]  # type: ignore[index]
        elif value:
            if last == "text" and not text[-1:].isspace() and not value[0].isspace():
                text += "\n"
            elif last not in ("", "text"):
                text += separator
            text += escape_marks(value)
        else:
            continue
        last = kind
    return text


def _named(name: str, how: Any, value: Any) -> Media:
    try:
        media: Media = how(value)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return media


def parts_of_context(text: str, media: Sequence[Part], where: str = "") -> list[Part]:
    """Media where the text's own `<image>` and `<audio>` stand if these are as many, in their order; else before it."""
    kinds = {mark: kind for kind, mark in MARKS.items()}
    pieces = split_at_marks(text)
    marked = [kinds[piece] for piece in pieces if piece in kinds]
    if media and marked == [kind for kind, _ in media]:
        waiting = iter(media)
        return [next(waiting) if piece in kinds else ("text", piece) for piece in pieces]
    if marked:
        log.warning("%s: %d place(s) for media are written in the text, but %d came; it is taken as words", where,
                    len(marked), len(media))  # fmt: skip
    return [*media, ("text", text)]


def medium_part(value: Any, said: str = "") -> Part:
    """A picture or a sound with its kind. `said`: what the harness calls it, believed last: lmms-eval calls a decoded
    sound a video. Raises DataError for films."""
    kind = _kind(value, said)
    if kind not in MARKS:
        what = f"a {type(value).__name__}" if not isinstance(value, str) else repr(value)
        raise DataError(
            f"{what} is taken for {kind or 'no medium'}; the model takes pictures (PIL, {', '.join(PICTURES)}) and "
            f"sounds (array with its sampling_rate, {', '.join(SOUNDS)}). Films are not supported; choose tasks without"
        )
    return kind, value


def _kind(value: Any, said: str) -> str:
    if isinstance(value, Mapping):
        if "array" in value:
            return "audio"
        path = value.get("path") or value.get("url") or ""
        return _kind(path, str(value.get("type") or said)) if path else str(value.get("type") or said)
    if hasattr(value, "get_all_samples"):  # an AudioDecoder of Hugging Face datasets
        return "audio"
    if isinstance(value, str | Path):
        ending = Path(value).suffix.lower()
        return "image" if ending in PICTURES else "audio" if ending in SOUNDS else said or "a film"
    return said or ("image" if hasattr(value, "size") else "")


def picture_media(value: Any) -> Media:
    """A picture of any form `as_media` knows, or a Hugging Face mapping with its bytes or path."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path") or value.get("url")
    return as_media(value)


def sound_media(value: Any) -> Media:
    """A path, bytes, `{"array": (samples,) or (channels, samples), "sampling_rate": 16000}`, or an AudioDecoder."""
    if hasattr(value, "get_all_samples"):
        found = value.get_all_samples()
        return _wave(np.asarray(found.data), int(found.sample_rate))
    if isinstance(value, Mapping):
        if "array" in value:
            return _wave(np.asarray(value["array"]), int(value["sampling_rate"]))
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, Media):
        return value
    if isinstance(value, bytes):
        return Media(data=value, name="bytes in memory")
    if isinstance(value, str | Path) and Path(value).expanduser().is_file():
        return Media(str(Path(value).expanduser()))
    raise DataError(f"{value!r} is no sound: give a file that is there, bytes, or an array with its sampling_rate")


def _wave(array: np.ndarray, rate: int) -> Media:
    """The samples as a WAV file of floats in memory, so that they go the way files go."""
    import soundfile

    channels = array.T if array.ndim == 2 else array  # (samples,) or (samples, channels)
    file = io.BytesIO()
    soundfile.write(file, channels.astype(np.float32), rate, format="WAV", subtype="FLOAT")
    return Media(data=file.getvalue(), name=f"{len(channels) / rate:.2f} s of sound")

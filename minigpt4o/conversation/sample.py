"""A sample as a data set gives it: turns of text with `<image>` and `<audio>` marks, and where the media lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
MediaKind = Literal["image", "audio"]
Rounding = Literal["round", "truncate"]

IMAGE_MARK = "<image>"
AUDIO_MARK = "<audio>"
MARKS: dict[MediaKind, str] = {"image": IMAGE_MARK, "audio": AUDIO_MARK}
BOX_MARK = "<bbox>"  # stands for the next of a sample's boxes, in a turn of any role


UNNAMED = "bytes in memory"  # name of media that have none


@dataclass(frozen=True)
class Media:
    """Where one picture or sound lies: a whole file, a byte range of a file (a tar member), or bytes in memory."""

    path: str = ""  # file that holds it; "" if `data` is given
    offset: int = 0  # first byte inside `path`
    size: int = -1  # number of bytes; -1 = to the end of the file
    data: bytes | None = None  # the encoded file itself (PNG, WAV, ...)
    name: str = ""  # what errors and reports call it; default: the path

    def read(self) -> bytes:
        """The encoded bytes. Raises OSError if the file cannot be read."""
        if self.data is not None:
            return self.data
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size if self.size >= 0 else -1)

    def __str__(self) -> str:
        return self.name or self.path or UNNAMED


@dataclass(frozen=True)
class Box:
    """An object of a picture in pixels of the original picture: left, top, right, bottom, as (x1, y1, x2, y2)."""

    xyxy: tuple[float, float, float, float]
    image_size: tuple[int, int]  # width, height of the original picture
    label: str = ""
    image: int = 0  # which picture of the sample


@dataclass(frozen=True)
class Turn:
    """One speaker's words. A mark stands where a picture, a sound or a box belongs; marks are used up in order."""

    role: Role
    text: str


@dataclass
class Sample:
    """One row of a data set: text and references only, no tensors and no tokens."""

    id: str  # unique inside its data set
    turns: list[Turn]
    images: list[Media] = field(default_factory=list)
    audios: list[Media] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)  # accepted answers, for scoring; turns hold the one to learn
    boxes: list[Box] = field(default_factory=list)  # the true boxes, in the order of their marks if the turns have any
    rounding: Rounding = "round"  # how a box is put on the grid where its mark stands
    language: str = ""  # "en", "ja", ... ; "" = unknown
    dataset: str = ""  # name of the data set in the configuration
    where: str = ""  # file and row, for errors
    meta: dict[str, Any] = field(default_factory=dict)  # question type, attributes, ...: kept in predictions

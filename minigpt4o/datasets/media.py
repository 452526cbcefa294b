"""Find the picture or sound that an annotation names; only local files, and never a type that can run code."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import Media, MediaKind
from minigpt4o.datasets.splits import REMOTE
from minigpt4o.datasets.tables.rows import Row

EXTENSIONS: dict[MediaKind, frozenset[str]] = {
    "image": frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"}),
    "audio": frozenset({"wav", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff"}),
}
# Files that Python would run code from, or that are no media at all.
FORBIDDEN = frozenset(
    {"pkl", "pickle", "pyd", "pyc", "pth", "pt", "ckpt", "bin", "npy", "npz", "joblib", "so", "sh", "exe"}
)


def extension(name: str) -> str:
    """The last extension in lower case without its dot."""
    return Path(name).suffix.lower().removeprefix(".")


class MediaFinder:
    """Values of one annotation column -> media below a root folder."""

    def __init__(self, root: str, template: str = "") -> None:
        self.root = Path(root).expanduser() if root else Path()
        self.template = template

    @property
    def names(self) -> list[str]:
        """The template's ways of naming a file, the first that is there counts: `{image}|train/{image}`."""
        return self.template.split("|")

    def check_root(self, name: str) -> None:
        """Raises DataError if the folder is missing: else every single sample would be skipped."""
        if not self.root.is_dir():
            raise DataError(f"datasets.{name}: media_root {str(self.root)!r} is no folder (looked from {Path.cwd()})")

    def of_row(self, row: Row, columns: str) -> list[Media]:
        """All media that the columns of a row name, in order."""
        if self.template:
            names = [row.fill(name) for name in self.names]
            there = next((name for name in names if (self.root / name).is_file()), "")
            if not there and len(names) > 1:
                tried = ", ".join(map(repr, dict.fromkeys(names)))
                raise SkipSample("missing_file", f"{row.where}: none of {tried} is in {str(self.root)!r}")
            return [self.find(there or names[0], row.where)]
        return [self.find(value, row.where) for value in row.columns(columns)]

    def find(self, value: Any, where: str) -> Media:
        """One medium from a path, a `data:` URL, or a mapping with `path`, `url`, `bytes` or base64 `data`."""
        if isinstance(value, dict):
            return self._of_mapping(value, where)
        if isinstance(value, bytes) and value:
            return Media(data=value, name=f"{where} bytes")
        if isinstance(value, int):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise SkipSample("missing_field", f"{where}: {value!r} does not name a file")
        if value.startswith("data:"):
            return Media(data=_from_base64(value.partition(",")[2], where), name=f"{where} data URL")
        if value.startswith("file://"):
            value = value.removeprefix("file://")
        if REMOTE.match(value):
            raise SkipSample("forbidden_type", f"{where}: {value!r} is not a local file; download it first")
        if "\0" in value or extension(value) in FORBIDDEN:
            raise SkipSample("forbidden_type", f"{where}: {value!r} is not a picture or sound file")
        path = self.root / value
        if not path.is_file():
            raise SkipSample("missing_file", f"{where}: {str(path)!r} does not exist")
        return Media(path=str(path), name=value)

    def _of_mapping(self, value: dict[str, Any], where: str) -> Media:
        data = value.get("data") or value.get("bytes")
        if isinstance(data, bytes) and data:  # a picture or sound column of Parquet and Arrow
            return Media(data=data, name=str(value.get("path") or f"{where} bytes"))
        if isinstance(data, str) and data:
            return Media(data=_from_base64(data, where), name=f"{where} base64")
        for key in ("path", "url", "file", "filename", "file_name"):
            if value.get(key):
                return self.find(value[key], where)
        raise SkipSample("missing_field", f"{where}: {sorted(value)} names no file (expected path, url or data)")


def _from_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SkipSample("read_error", f"{where}: broken base64 ({error})") from error


def image_size(media: Media) -> tuple[int, int]:
    """(width, height) of a picture as it is seen upright, from its header alone. Raises SkipSample."""
    from minigpt4o.processors.image import upright_size

    return upright_size(media)

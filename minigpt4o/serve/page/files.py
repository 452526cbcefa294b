"""Files that are made for one visitor's page: they lie in a folder of their own and go with the visitor."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from minigpt4o.conversation.sample import Media


class Files:
    """See the module. The names of all files are ours."""

    def __init__(self) -> None:
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def clean(self) -> None:
        """Remove them all."""
        if self._place is not None:
            self._place.cleanup()
            self._place = None

    def folder(self) -> Path:
        """A folder of this visitor's own, gone when the tab is."""
        if self._place is None:
            self._place = tempfile.TemporaryDirectory(prefix="minigpt4o-page-")
        return Path(self._place.name)

    def picture(self, picture: Image.Image) -> str:
        """A new file with this picture."""
        path = self._next(".webp")
        picture.convert("RGB").save(path, "WEBP", quality=90)
        return str(path)

    def keep(self, media: Media) -> str:
        """A new file with these bytes; its name is ours, its kind is told by its content."""
        data = media.read()
        kinds = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"fLaC", ".flac"))
        ending = next((ending for start, ending in kinds if data.startswith(start)), "")
        if not ending:
            riff = {b"WEBP": ".webp", b"WAVE": ".wav"}.get(data[8:12], "")
            ending = riff or (".ogg" if data.startswith(b"OggS") else ".mp3")
        path = self._next(ending)
        path.write_bytes(data)
        return str(path)

    def _next(self, ending: str) -> Path:
        self._count += 1
        return self.folder() / f"{self._count:04}{ending}"

"""Read the encoded bytes of a picture or sound within bounds, or say why they cannot be had."""

from __future__ import annotations

import stat
from pathlib import Path

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Media


def read_media(media: Media, unreadable: str, max_bytes: int, too_large: str) -> bytes:
    """The encoded bytes, their number checked before they are read.

    Raises SkipSample: missing_file, read_error (no plain file, or cut off), `unreadable` if there are none,
    `too_large` if there are more than `max_bytes`.
    """
    try:
        size = _size(media)
        if size > max_bytes:
            raise SkipSample(too_large, f"{media}: {size:,} bytes, at most {max_bytes:,} are read")
        data = media.read()
    except FileNotFoundError as error:
        raise SkipSample("missing_file", f"{media}: there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SkipSample("read_error", f"{media}: {error}") from error
    if not data:
        raise SkipSample(unreadable, f"{media}: the file is empty")
    if len(data) < media.size:
        raise SkipSample("read_error", f"{media}: {len(data)} of {media.size} bytes are there; the file is cut off")
    return data


def _size(media: Media) -> int:
    """Bytes that reading would give."""
    if media.data is not None:
        return len(media.data)
    if media.size >= 0:
        return media.size
    found = Path(media.path).stat()
    if not stat.S_ISREG(found.st_mode):  # a folder, a pipe, a device without end
        raise OSError("it is no plain file")
    return found.st_size - media.offset

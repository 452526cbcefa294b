"""Which way up a picture is to be seen, by its EXIF orientation; without torch, for tools that only look at headers."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_TAG = 0x0112
_LYING = (5, 6, 7, 8)  # orientations of pictures stored on their side
# What Pillow's readers raise on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
DAMAGED = (*DAMAGE, zlib.error)


def orientation(picture: Image.Image) -> int:
    """1 to 8; 1, upright, for metadata that are not there or cannot be read."""
    try:
        found = picture.getexif().get(_TAG, 1)
    except DAMAGED:
        return 1
    return found if isinstance(found, int) else 1


def seen_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) of an open picture as it is seen upright; pixels are decoded of a PNG alone, to look behind."""
    width, height = picture.size
    return (height, width) if orientation(picture) in _LYING else (width, height)

"""Read MNIST's IDX files, gzipped or not, and hand their pictures on as PNG."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt4o.common.errors import DataError

UBYTE = 0x08  # the only element type of the pictures and labels of MNIST and its kin


@dataclass(frozen=True)
class Idx:
    """The array of one file, and the SHA-256 of its bytes."""

    array: np.ndarray  # uint8; (N,) labels or (N, H, W) pictures
    digest: str


def is_idx(path: Path) -> bool:
    """Whether a file is IDX by its name, as MNIST's are: `...-idx3-ubyte` or `...-idx1-ubyte`, perhaps `.gz`."""
    return "idx1-ubyte" in path.name or "idx3-ubyte" in path.name


def read_idx(path: Path, dimensions: int) -> Idx:
    """The whole file. Raises DataError if it is not IDX, is cut off, or has another number of dimensions."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UBYTE:
        raise DataError(f"{path}: is not an IDX file of bytes; it begins with {data[:4]!r}")
    if data[3] != dimensions:
        what = {1: "labels (idx1)", 3: "pictures (idx3)"}
        raise DataError(f"{path}: has {data[3]} dimension(s) where {what[dimensions]} were expected")
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[4 + 4 * d : 8 + 4 * d], "big") for d in range(dimensions))
    if len(data) - start != math.prod(shape):
        raise DataError(f"{path}: its header promises {math.prod(shape)} bytes, {len(data) - start} follow")
    return Idx(np.frombuffer(data, np.uint8, offset=start).reshape(shape), hashlib.sha256(raw).hexdigest())


def png_of(picture: np.ndarray) -> bytes:
    """A grey picture (H, W) uint8 as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()

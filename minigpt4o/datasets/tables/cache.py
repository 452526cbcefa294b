"""Keep arrays made from annotation files on disk and map them into memory: made once, shared by all processes."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from minigpt4o.common.cache import cache_dir
from minigpt4o.common.errors import Minigpt4oError
from minigpt4o.common.files import write_bytes
from minigpt4o.datasets.base import sha256

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
MAGIC = b"minigpt4o rows 1\n"
ALIGNED = 64  # bytes; arrays begin at multiples of it
KEPT_FROM = 20_000  # rows; fewer are looked through again faster than a file is kept for them


def derived(owner: Sequence[object], state: Sequence[object], make: Callable[[], Arrays], keep: bool) -> Arrays:
    """The arrays of `make()`, out of the cache if they are there.

    `owner` says whose they are (a file, a choice of rows), `state` on what they depend; with a new state the file of
    the old one is removed. A cache that cannot be written or read is no error.
    """
    if not keep:
        return make()
    folder, prefix = cache_dir("rows"), sha256(*owner)[:24]
    path = folder / f"{prefix}-{sha256(*state)[:24]}.arrays"
    found = load(path)
    if found is None:
        found = make()
        if save(path, found):
            for old in folder.glob(f"{prefix}-*.arrays"):
                if old != path:
                    old.unlink(missing_ok=True)
            found = load(path) or found  # mapped: no memory of this process's own
    return found


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays could be written as one file."""
    head: dict[str, list[object]] = {}
    pieces: list[bytes] = []
    place = 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        head[name] = [array.dtype.str, list(array.shape), place, zlib.crc32(raw)]
        pieces += [raw, bytes(-len(raw) % ALIGNED)]
        place += -(-len(raw) // ALIGNED) * ALIGNED
    first = MAGIC + json.dumps(head).encode() + b"\n"
    first += b" " * (-len(first) % ALIGNED)
    try:
        write_bytes(path, b"".join([first, *pieces]))
    except (OSError, Minigpt4oError) as error:
        log.warning("what was learned of the annotation files is kept in memory, not in %s: %s", path.parent, error)
        return False
    return True


def load(path: Path) -> Arrays | None:
    """The arrays of a file, mapped and read-only; None if it is absent or damaged."""
    try:
        with path.open("rb") as file:
            if file.readline() != MAGIC:
                return None
            head = json.loads(file.readline())
            start = -(-file.tell() // ALIGNED) * ALIGNED
            size = os.fstat(file.fileno()).st_size
        whole = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        found = {}
        for name, (dtype, shape, place, crc) in head.items():
            length = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            raw = np.asarray(whole[start + place : start + place + length])
            if np.dtype(dtype).kind not in "uifb" or len(raw) != length or zlib.crc32(raw.data) != crc:
                raise ValueError(f"{name} is damaged")
            found[name] = raw.view(dtype).reshape(shape)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s cannot be used and is made anew: %s", path, error)
        return None
    return found

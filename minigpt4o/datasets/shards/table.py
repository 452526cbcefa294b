"""Where the members of one shard lie, as flat arrays in a file that all processes map into memory."""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.datasets.shards.tar import Member

MAGIC = b"M4OSHARD"
VERSION = 1
ALIGN = 64  # bytes; arrays begin at multiples of it
# G groups (samples), M members, sorted by group and inside a group as they stand in the archive.
ARRAYS = (
    ("start", "<u4"),  # (G+1,) first member of each group
    ("hash", "<u8"),  # (G,) BLAKE2b-64 of the key: finds keys that come twice, and folds, without reading a name
    ("offset", "<u8"),  # (M,) first byte in the archive
    ("size", "<u8"),  # (M,) bytes
    ("extension", "<u4"),  # (M,) number in `extensions`
    ("name_end", "<u8"),  # (M,) end of its name in `names`
    ("names", "|u1"),  # full names in UTF-8, one after the other
)


@dataclass(frozen=True)
class Facts:
    """What an index says of its archive as a whole."""

    size: int  # bytes of the archive
    mtime_ns: int  # when it was last changed
    members: int
    groups: int
    damage: str = ""  # what was wrong with it, in words
    sha256: str = ""  # of the archive; empty if nobody has computed it
    packed: bool = False  # it is compressed: offsets are of what it unpacks to
    path: str = ""  # where it lay when it was indexed


class ShardTable:
    """An index: built from members, or mapped from a file."""

    def __init__(self, facts: Facts, extensions: list[str], arrays: dict[str, np.ndarray], file: str = "") -> None:
        self.facts, self.extensions, self.file = facts, extensions, file
        self._arrays = arrays
        self.start, self.hash, self.offset, self.size, self.extension, self.name_end, self.names = (
            arrays[name] for name, _ in ARRAYS
        )

    def __len__(self) -> int:
        """Samples."""
        return self.facts.groups

    @classmethod
    def build(cls, members: Sequence[Member], facts: dict[str, Any]) -> ShardTable:
        """The index of an archive's members; `facts` are those of `Facts` but for the counts."""
        numbers: dict[str, int] = {}
        extensions: dict[str, int] = {}
        group_of, extension_of = [], []
        for member in members:
            key, extension = split_name(member.name)
            group_of.append(numbers.setdefault(key, len(numbers)))
            extension_of.append(extensions.setdefault(extension, len(extensions)))
        groups = np.asarray(group_of, np.int64)
        order = np.argsort(groups, kind="stable")
        names = [members[i].name.encode("utf-8", "surrogatepass") for i in order]
        values = {
            "start": np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=len(numbers)))]),
            "hash": [key_hash(key) for key in numbers],
            "offset": np.array([m.offset for m in members], np.uint64)[order],
            "size": np.array([m.size for m in members], np.uint64)[order],
            "extension": np.array(extension_of, np.uint32)[order],
            "name_end": np.cumsum([len(name) for name in names]),
            "names": np.frombuffer(b"".join(names), np.uint8),
        }
        arrays = {name: np.ascontiguousarray(values[name], np.dtype(kind)) for name, kind in ARRAYS}
        whole = Facts(**facts, members=len(members), groups=len(numbers))
        return cls(whole, list(extensions), arrays)

    # --- reading

    def name(self, member: int) -> str:
        """Full name of a member."""
        begin = int(self.name_end[member - 1]) if member else 0
        return self.names[begin : int(self.name_end[member])].tobytes().decode("utf-8", "surrogatepass")

    def key(self, group: int) -> str:
        """What the member names of a sample have in common."""
        return split_name(self.name(int(self.start[group])))[0]

    def members(self, group: int) -> list[tuple[str, Member]]:
        """(extension, member) of each of a sample's members."""
        first, last = self.start[group : group + 2].tolist()
        begin = int(self.name_end[first - 1]) if first else 0
        ends = (self.name_end[first:last] - np.uint64(begin)).tolist()
        names = self.names[begin : begin + ends[-1]].tobytes()
        words = [names[i:j].decode("utf-8", "surrogatepass") for i, j in zip([0, *ends], ends, strict=False)]
        made = map(Member, words, self.offset[first:last].tolist(), self.size[first:last].tolist())
        return [
            (self.extensions[kind], one) for kind, one in zip(self.extension[first:last].tolist(), made, strict=True)
        ]

    def sizes(self, group: int) -> list[tuple[str, int]]:
        """(extension, bytes) of each of a sample's members; no name is read."""
        first, last = self.start[group : group + 2].tolist()
        kinds, sizes = self.extension[first:last].tolist(), self.size[first:last].tolist()
        return [(self.extensions[kind], size) for kind, size in zip(kinds, sizes, strict=True)]

    def in_archive_order(self) -> list[Member]:
        """All members as they follow each other in the archive."""
        order = np.argsort(self.offset, kind="stable").tolist()
        return [Member(self.name(i), int(self.offset[i]), int(self.size[i])) for i in order]

    # --- files

    def dump(self) -> bytes:
        """The file's bytes: magic, length of the header, header as JSON, arrays."""
        shapes = {name: len(array) for name, array in self._arrays.items()}
        header = {"version": VERSION, "facts": asdict(self.facts), "extensions": self.extensions, "arrays": shapes}
        text = json.dumps(header).encode()
        pieces = [MAGIC, struct.pack("<Q", len(text)), text]
        at = sum(map(len, pieces))
        for array in self._arrays.values():
            gap = -at % ALIGN
            pieces += [bytes(gap), array.tobytes()]
            at += gap + array.nbytes
        return b"".join([*pieces, hashlib.blake2b(text, digest_size=8).digest()])

    @classmethod
    def load(cls, file: Path) -> ShardTable | None:
        """The index in a file, mapped; None if there is none, or it is not whole or of another version."""
        try:
            with file.open("rb") as handle:
                view = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        try:
            return cls._parse(view, str(file))
        except (ValueError, KeyError, TypeError, struct.error, OverflowError):
            return None

    @classmethod
    def _parse(cls, view: mmap.mmap, file: str) -> ShardTable | None:
        if view[:8] != MAGIC:
            return None
        at = 16 + struct.unpack("<Q", view[8:16])[0]
        text = view[16:at]
        if view[-8:] != hashlib.blake2b(text, digest_size=8).digest():
            return None
        header = json.loads(text)
        if header["version"] != VERSION:
            return None
        arrays = {}
        for name, kind in ARRAYS:
            at += -at % ALIGN
            arrays[name] = np.frombuffer(view, np.dtype(kind), header["arrays"][name], at)
            at += arrays[name].nbytes
        if at + 8 != len(view):
            return None
        return cls(Facts(**header["facts"]), header["extensions"], arrays, file)


def split_name(name: str) -> tuple[str, str]:
    """`a/b.seg.png` -> (`a/b`, `seg.png`): the WebDataset rule, the first dot of the file name divides."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def key_hash(key: str) -> int:
    """64 bits of a key; `splits.fold_of` divides the same number into folds."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")

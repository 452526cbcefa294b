"""Index a tar: where each member's bytes lie. Every header's checksum is verified, and damage is named by its byte."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minigpt4o.common.errors import DataError
from minigpt4o.conversation.sample import Media
from minigpt4o.datasets.descriptors import FILES

BLOCK = 512
GUNZIP_LIMIT = 2 << 30  # bytes that a compressed shard may become in memory
EXTRA_LIMIT = 1 << 20  # bytes of a long name or an extended header; honest ones have some hundred
DIGITS = 20  # of a number in an extended header
_CHECKSUM = re.compile(rb" *[0-7]+[\0 ]+")
_REGULAR = b"0\0007"  # type flags of plain files: "0", NUL (old archives), "7" (contiguous)


class TarDamage(DataError):
    """The archive cannot be trusted from a certain byte on."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar."""

    name: str
    offset: int  # of its first byte
    size: int


@dataclass(frozen=True)
class MemberMedia(Media):
    """A member read through a file that stays open between reads."""

    stamp: int = 0  # of the archive when it was indexed: see `OpenFiles.hold`

    def read(self) -> bytes:
        """The encoded bytes. Raises OSError if the archive cannot be read, or ends before."""
        return FILES.read(self.path, self.offset, self.size, self.stamp)


class Tar:
    """An archive whose members were found by going through it. `damage` says what was wrong; those before are whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: bytes | None = None  # the archive itself if it is compressed
        self.members: list[Member] = []
        self.damage = ""
        self.stamp = 0
        try:
            self.data = gunzip(path)
            self.stamp = path.stat().st_mtime_ns
            for member in _scan(path if self.data is None else self.data, path):
                self.members.append(member)
        except TarDamage as damage:
            self.damage = str(damage)

    def read(self, member: Member) -> bytes:
        """The bytes of a member by one positioned read: safe for processes that share the file."""
        return read_member(self.path, self.data, member, self.stamp)

    def media(self, member: Member) -> Media:
        """The member as a picture or sound to be opened later."""
        return member_media(self.path, self.data, member, self.stamp)


def read_member(path: Path, data: bytes | None, member: Member, stamp: int) -> bytes:
    """The bytes of a member of the file, or of `data`, the archive in memory."""
    if data is not None:
        return data[member.offset : member.offset + member.size]
    return FILES.read(str(path), member.offset, member.size, stamp)


def member_media(path: Path, data: bytes | None, member: Member, stamp: int) -> Media:
    """A member as a picture or sound to be opened later."""
    name = f"{path}:{member.name}"
    if data is not None:
        return Media(data=read_member(path, data, member, stamp), name=name)
    return MemberMedia(path=str(path), offset=member.offset, size=member.size, name=name, stamp=stamp)


def gunzip(path: Path) -> bytes | None:
    """The archive in memory if the file is gzip by its first bytes, else None."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                return None
            file.seek(0)
            packed = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    machine = zlib.decompressobj(wbits=31)
    try:
        data = machine.decompress(packed, GUNZIP_LIMIT)
    except zlib.error as error:
        raise TarDamage(f"{path}: broken gzip ({error}); fetch the file again") from error
    if machine.unconsumed_tail:
        raise TarDamage(f"{path}: unpacks to more than {GUNZIP_LIMIT >> 30} GiB; run gunzip on it and name the .tar")
    if not machine.eof:
        raise TarDamage(f"{path}: the gzip stream is cut off; fetch the file again")
    return data


def _scan(source: bytes | Path, path: Path) -> Iterator[Member]:
    """Members in order. Raises TarDamage where the archive stops making sense."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size == 0:
        raise TarDamage(f"{path}: the file is empty")
    fd = -1 if isinstance(source, bytes) else os.open(source, os.O_RDONLY)
    try:
        yield from _walk(_Reader(source, fd), size, path)
    finally:
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True)
class _Reader:
    source: bytes | Path
    fd: int

    def __call__(self, offset: int, size: int) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[offset : offset + size]
        return os.pread(self.fd, size, offset)


def _walk(read: _Reader, size: int, path: Path) -> Iterator[Member]:
    offset = 0
    extra: dict[str, str] = {}  # what pax and GNU headers say of the next member
    while True:
        header = read(offset, BLOCK)
        if len(header) < BLOCK:
            raise TarDamage(f"{path}: cut off at byte {offset + len(header)}: the end marker is missing")
        if header == bytes(BLOCK):
            _check_end(read, offset, size, path)
            return
        name, length, flag = _parse(header, path, offset)
        if flag in _REGULAR:
            length = int(extra.get("size", length))
        start, offset = offset + BLOCK, offset + BLOCK + -(-length // BLOCK) * BLOCK
        if start + length > size:
            raise TarDamage(f"{path}: cut off at byte {size}: {name!r} should reach to byte {start + length}")
        if flag in b"Lx" and length > EXTRA_LIMIT:
            raise TarDamage(f"{path}: the extended header at byte {start} claims {length:,} bytes")
        if flag == b"L":
            extra["path"] = read(start, length).rstrip(b"\0").decode("utf-8", "replace")
        elif flag == b"x":
            extra.update(_pax(read(start, length), path, start))
        elif flag in _REGULAR:
            yield Member(extra.get("path", name), start, length)
            extra = {}
        elif flag != b"g":  # folders, links and devices are no data
            extra = {}


def _parse(header: bytes, path: Path, offset: int) -> tuple[str, int, bytes]:
    """(name, size, type flag) of a header block whose checksum holds."""
    said = header[148:156]
    total = sum(header) - sum(said) + 8 * 0x20
    if not _CHECKSUM.fullmatch(said) or int(said.strip(b" \0"), 8) != total:
        if offset == 0 and header[257:262] != b"ustar":
            raise TarDamage(f"{path}: is not a tar; it begins with {header[:24]!r}")
        raise TarDamage(f"{path}: the member header at byte {offset} is damaged (its checksum does not hold)")
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "replace"), _number(header[124:136], path, offset), header[156:157]


def _number(field: bytes, path: Path, offset: int) -> int:
    if field[0] & 0x80:  # GNU: sizes of 8 GiB and more in base 256
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise TarDamage(f"{path}: the header at byte {offset} gives no readable size: {field!r}") from None


def _pax(body: bytes, path: Path, offset: int) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n` of an extended header."""
    found: dict[str, str] = {}
    at, end = 0, len(body.rstrip(b"\0"))
    while at < end:
        blank = body.find(b" ", at, at + DIGITS)
        word = body[at : max(blank, at)]
        if not word.isdigit() or not len(word) + 1 < int(word) <= len(body) - at:
            raise TarDamage(f"{path}: the extended header at byte {offset} is damaged")
        key, _, value = body[blank + 1 : at + int(word) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        at += int(word)
    size = found.get("size", "0")
    if not (size.isascii() and size.isdigit() and len(size) <= DIGITS):
        raise TarDamage(f"{path}: the extended header at byte {offset} gives no readable size: {size[:40]!r}")
    return found


def _check_end(read: _Reader, offset: int, size: int, path: Path) -> None:
    """Two blocks of zeros end a tar, and nothing but zeros follows."""
    if size - offset < 2 * BLOCK:
        raise TarDamage(f"{path}: cut off at byte {size}: the end marker is missing")
    while offset < size:
        piece = read(offset, 1 << 20)
        if piece.strip(b"\0"):
            place = offset + len(piece) - len(piece.lstrip(b"\0"))
            raise TarDamage(f"{path}: something follows the end marker at byte {place} (two archives in one file?)")
        offset += len(piece)

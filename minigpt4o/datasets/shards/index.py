"""Group the members of WebDataset tars by key, and decode the small ones by an explicit table."""

from __future__ import annotations

import hashlib
import json
import logging
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from minigpt4o.common.errors import DataError, SkipSample
from minigpt4o.conversation.sample import Media
from minigpt4o.datasets.media import EXTENSIONS, FORBIDDEN
from minigpt4o.datasets.shards.table import split_name
from minigpt4o.datasets.shards.tar import Member, Tar

__all__ = ["DECODERS", "Group", "index_fingerprint", "open_tars", "split_name"]

NAMED = 5  # damaged shards that an error tells in full


class Archive(Protocol):
    """What the members of a sample lie in."""

    @property
    def path(self) -> Path | str:
        """What it is called in messages."""
        ...

    def read(self, member: Member) -> bytes: ...

    def media(self, member: Member) -> Media: ...


@dataclass(slots=True)
class Group:
    """The members of one sample."""

    tar: Archive
    key: str
    members: dict[str, Member]  # by extension: everything after the first dot of the file name, in lower case
    twice: str = ""  # an extension that came twice

    @property
    def where(self) -> str:
        return f"{self.tar.path}:{self.key}"

    def member(self, extensions: Sequence[str]) -> tuple[str, Member]:
        """The first extension that is there, and its member. Raises SkipSample."""
        if self.twice:
            raise SkipSample("duplicate_key", f"{self.where}: member .{self.twice} came twice in its shard")
        for extension in extensions:
            if extension in self.members:
                return extension, self.members[extension]
        known = ", ".join(self.members)
        raise SkipSample("missing_member", f"{self.where}: no .{' or .'.join(extensions)}; the sample has: {known}")

    def media(self, extensions: Sequence[str]) -> Media:
        """A picture or sound to be opened later."""
        extension, member = self.member(extensions)
        last = extension.rpartition(".")[2]
        if last in FORBIDDEN or not any(last in known for known in EXTENSIONS.values()):
            raise SkipSample("forbidden_type", f"{self.where}: .{extension} is no picture or sound that may be opened")
        return self.tar.media(member)

    def raw(self) -> dict[str, bytes]:
        """Every member's bytes by extension, as they are."""
        return {extension: self.tar.read(member) for extension, member in self.members.items()}

    def decoded(self, extension: str) -> Any:
        """The value of a text-like member (json, txt, cls)."""
        extension, member = self.member([extension])
        decode = DECODERS.get(extension.rpartition(".")[2])
        if decode is None:
            known = ", ".join(DECODERS)
            raise SkipSample("forbidden_type", f"{self.where}: .{extension} is never decoded; decoded are: {known}")
        try:
            return decode(self.tar.read(member))
        except UnicodeDecodeError as error:
            raise SkipSample("bad_text", f"{self.where}.{extension}: byte {error.start} is not UTF-8") from error
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and bottomless brackets
            raise SkipSample("bad_json", f"{self.where}.{extension}: {str(error)[:200]}") from error


def _text(raw: bytes) -> str:
    return raw.removeprefix(BOM_UTF8).decode().strip()


# What may be decoded, and how. Nothing that is not here is ever interpreted.
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "json": lambda raw: json.loads(_text(raw)),
    "txt": _text,
    "text": _text,
    "caption": _text,
    "cls": _text,
    "cls2": _text,
    "index": _text,
}


def open_tars(paths: Sequence[Path], name: str, damaged: Literal["refuse", "keep"]) -> list[Tar]:
    """Index all shards. Damage is an error that names the shards, or with "keep" a warning."""
    tars = [Tar(path) for path in paths]
    told = [f"{tar.damage} ({len(tar.members)} whole members before it)" for tar in tars if tar.damage]
    tell_damage(told, len(tars), name, damaged)
    return tars


def tell_damage(told: Sequence[str], count: int, name: str, damaged: Literal["refuse", "keep"]) -> None:
    """Raises DataError for what is wrong with some of `count` shards, or with "keep" logs it."""
    if not told:
        return
    lines = "\n".join(f"  {line}" for line in told[:NAMED])
    lines += f"\n  and {len(told) - NAMED} more" if len(told) > NAMED else ""
    text = f"datasets.{name}: {len(told)} of {count} tar(s) are damaged:\n{lines}"
    if damaged == "refuse":
        raise DataError(f"{text}\nfetch them again, or set `damaged: keep` to use what lies before the damage")
    logging.getLogger(__name__).warning("%s\ndamaged: keep is set; what follows the damage is left out", text)


def index_fingerprint(shards: Iterable[tuple[str, Sequence[Member]]]) -> str:
    """SHA-256 of (file name, members) of shards: names, offsets and sizes."""
    digest = hashlib.sha256()
    for name, members in shards:
        digest.update(f"{name}\x1f{len(members)}\x1e".encode("utf-8", "surrogatepass"))
        for member in members:
            line = f"{member.name}\x1f{member.offset}\x1f{member.size}\x1e"
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()

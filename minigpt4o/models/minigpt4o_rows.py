"""From which old rows each token of a new vocabulary starts: compared by what it writes, whatever the alphabet."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minigpt4o.common.errors import ConfigError

Rows = tuple[int, ...]  # one old row: copied; several: their mean; none: the mean of all, with a little noise

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece writes a single byte
UNUSED = re.compile(r"<unused(_image_|_audio_)?\d+>")  # rows without a text


@dataclass
class Vocabulary:
    """A tokenizer as bytes: what ordinary tokens write, and the special tokens by name."""

    tokenizer: Any
    texts: dict[int, bytes]
    ids: dict[bytes, int]  # of several tokens that write the same, the plainest
    special: dict[str, int]

    @property
    def size(self) -> int:
        return len(self.texts) + len(self.special)

    def cut(self, text: bytes) -> Rows:
        """The tokens that together write `text`, as the tokenizer cuts it; () if it has none for some of it."""
        try:
            ids = self.tokenizer.encode(text.decode(), add_special_tokens=False)
        except UnicodeDecodeError:  # a token may end inside a letter
            ids = []
        if b"".join(self.texts.get(i, b"") for i in ids) == text and all(i in self.texts for i in ids):
            return tuple(ids)
        return self._longest_first(text)

    def _longest_first(self, text: bytes) -> Rows:
        found: list[int] = []
        start = 0
        while start < len(text):
            end = next((end for end in range(len(text), start, -1) if text[start:end] in self.ids), None)
            if end is None:
                return ()
            found.append(self.ids[text[start:end]])
            start = end
        return tuple(found)


@dataclass
class Plan:
    """For each new id its old rows, and how many were found in which way."""

    rows: list[Rows]
    found: Counter[str]


def read_vocabulary(tokenizer: Any, name: str) -> Vocabulary:
    """Works for byte-level alphabets and for SentencePiece's (blanks as signs, bytes as `<0x41>`)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(f"{name}: a {type(tokenizer).__name__} has no tokenizer.json; its tokens cannot be compared")
    steps = list(_steps(json.loads(backend.to_str()).get("decoder")))
    byte_level = any(step["type"] == "ByteLevel" for step in steps)
    blanks = [sign for step in steps if (sign := _blank(step))]
    letters = _bytes_of_letters() if byte_level else {}
    added = tokenizer.added_tokens_decoder
    texts: dict[int, bytes] = {}
    special: dict[str, int] = {}
    plain: dict[bytes, int] = {}
    for token, i in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if i in added and added[i].special:
            special[token] = i
            continue
        single = BYTE_TOKEN.fullmatch(token) if not byte_level else None
        if single:
            texts[i] = bytes.fromhex(single[1])
            continue
        texts[i] = _written(token, {} if i in added else letters, blanks)
        plain.setdefault(texts[i], i)
    ids = dict(plain)
    for i, text in texts.items():
        ids.setdefault(text, i)
    return Vocabulary(tokenizer, texts, ids, special)


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    """The parts of a decoder, sequences opened."""
    if decoder:
        yield decoder
        for part in decoder.get("decoders", []):
            yield from _steps(part)


def _blank(step: Mapping[str, Any]) -> str | None:
    """The sign that this part of a decoder turns into a blank."""
    if step["type"] == "Metaspace":
        return str(step["replacement"])
    if step["type"] == "Replace" and step.get("content") == " ":
        return step["pattern"].get("String")
    return None


def _written(token: str, letters: Mapping[str, int], blanks: list[str]) -> bytes:
    if letters and all(letter in letters for letter in token):
        return bytes(letters[letter] for letter in token)
    for sign in blanks:
        token = token.replace(sign, " ")
    return token.encode()


def _bytes_of_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level alphabets: itself if it can be seen, else a free one."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(0x100 + n): b for n, b in enumerate(hidden)}


def plan_rows(new: Vocabulary, old: Vocabulary, roles: Mapping[int, int], count: int) -> Plan:
    """The old rows of new ids 0 ... count - 1. `roles`: new id -> old id of what has a job, whatever its name."""
    names = {i: token for token, i in new.special.items()}
    plan = Plan([()] * count, Counter())
    for i in range(count):
        how, rows = _found(i, names.get(i), new, old, roles)
        plan.rows[i] = rows
        plan.found[how] += 1
    return plan


def _found(i: int, name: str | None, new: Vocabulary, old: Vocabulary, roles: Mapping[int, int]) -> tuple[str, Rows]:
    if i in roles:
        return "role", (roles[i],)
    if name is not None:
        return ("string", (old.special[name],)) if name in old.special else ("mean", ())
    text = new.texts.get(i)
    if text is None:
        return "mean", ()
    if text in old.ids:
        return "string", (old.ids[text],)
    if UNUSED.fullmatch(text.decode(errors="replace")):
        return "mean", ()
    rows = old.cut(text)
    return ("pieces", rows) if rows else ("mean", ())


def media_rows(new: tuple[int, int], old: tuple[int, int]) -> dict[int, int]:
    """New id -> old id of one medium's rows, (first id, rows) each.

    The end mark and the soft token are the first two, the last row fills short sounds; between them, place by place.
    """
    (first, rows), (old_first, old_rows) = new, old
    if not old_rows:
        return {}
    between = {first + n: old_first + n for n in range(min(rows, old_rows) - 1)}
    return {**between, first + rows - 1: old_first + old_rows - 1}

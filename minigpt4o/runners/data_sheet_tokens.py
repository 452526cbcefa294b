"""A row of ids as pieces that a person can read: which are learned, which are the template's, which are media."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from minigpt4o.conversation.batch import IGNORE, SLOTS, Example
from minigpt4o.conversation.marks import unescape_marks
from minigpt4o.conversation.sample import MediaKind
from minigpt4o.conversation.template import Segment, Template

PieceKind = Literal["text", "control", "special", "image", "audio"]
_KINDS: dict[int, MediaKind] = {SLOTS["image"]: "image", SLOTS["audio"]: "audio"}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD = re.compile(r"\s*\S+|\s+")
_BLANK = "\u2581"  # what SentencePiece writes for a blank


@dataclass(frozen=True)
class Piece:
    """A token, tokens that only together make a character, or the places of one medium."""

    kind: PieceKind  # text: said by a person or a data set; control: the template's own; special: a special token
    learned: bool = False
    text: str = ""
    ids: list[int] = field(default_factory=list)


class Words:
    """Stands in for a tokenizer that is not here: cuts text into words, and the template's own texts out whole."""

    bos_token_id = pad_token = None
    pad_token_id = -100_000  # of no word
    all_special_tokens: tuple[str, ...] = ()

    def __init__(self, template: Template) -> None:
        self.known: dict[str, int] = {}
        arounds = [*template.roles.values(), *template.media.values()]
        own = (text for a in arounds for text in (a.before, a.after, a.again, a.behind_system))
        self.added = {text: self._id(text) for text in own if text}

    def get_added_vocab(self) -> dict[str, int]:
        return self.added

    def convert_tokens_to_ids(self, words: Any) -> Any:
        if isinstance(words, list):
            return [self._id(word) for word in words]
        return self._id(words)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [self._id(word) for word in _WORD.findall(text)]}

    def _id(self, word: str) -> int:
        return self.known.setdefault(word, len(self.known))


def pieces_of(example: Example, tokenizer: Any, slots: dict[str, int], segments: Sequence[Segment]) -> list[Piece]:
    """The row of an example; `segments` are those it was cut from, and say what is the template's own text."""
    ids, labels = example.input_ids.tolist(), example.labels.tolist()
    read = _reader(tokenizer)
    special = set() if isinstance(tokenizer, Words) else _special_ids(tokenizer)
    pieces: list[Piece] = []
    at = 0
    while at < len(ids):
        learned = labels[at] != IGNORE
        if ids[at] < 0:
            kind = _KINDS[ids[at]]
            count = max(slots.get(kind, 1), 1)
            pieces.append(Piece(kind, learned, ids=ids[at : at + count]))
            at += count
            continue
        if ids[at] in special:
            pieces.append(Piece("special", learned, read(ids[at]).decode("utf-8", "replace"), [ids[at]]))
            at += 1
            continue
        end = at + 1
        text = read(ids[at])
        while _broken(text) and end < len(ids) and ids[end] >= 0 and (labels[end] != IGNORE) == learned:
            text += read(ids[end])
            end += 1
        pieces.append(Piece("text", learned, text.decode("utf-8", "replace"), ids[at:end]))
        at = end
    return _with_control(pieces, segments)


# ---- ids as text ----


def _reader(tokenizer: Any) -> Callable[[int], bytes]:
    """Id -> the bytes it stands for, blanks in front of words included."""
    if isinstance(tokenizer, Words):
        words = {number: word for word, number in tokenizer.known.items()}
        return lambda i: words[i].encode("utf-8", "surrogatepass")
    added = {number: word for word, number in tokenizer.get_added_vocab().items()}
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    letters = _letters() if decoder is not None and b"ByteLevel" in decoder.__getstate__() else None

    def read(i: int) -> bytes:
        if i in added:
            return added[i].encode()
        token = str(tokenizer.convert_ids_to_tokens(i))
        if letters is not None and all(letter in letters for letter in token):
            return bytes(letters[letter] for letter in token)
        if byte := _BYTE.fullmatch(token):
            return bytes([int(byte.group(1), 16)])
        return token.replace(_BLANK, " ").encode("utf-8", "surrogatepass")

    return read


@cache
def _letters() -> dict[str, int]:
    """Letter -> byte of byte-level BPE: bytes that print stand for themselves, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + n): b for n, b in enumerate(others)}


def _special_ids(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}


def _broken(text: bytes) -> bool:
    """Whether the bytes end within a character."""
    for length in range(1, min(len(text), 3) + 1):
        first = text[-length]
        if first & 0xC0 != 0x80:
            return first >= 0xC0 and length < (2 if first < 0xE0 else 3 if first < 0xF0 else 4)
    return False


# ---- what is the template's ----


def _with_control(pieces: list[Piece], segments: Sequence[Segment]) -> list[Piece]:
    """Pieces of the template's own words as such; runs that the tokenizer has rewritten stay as they are."""
    runs, found = _runs_of(segments), list(pieces)
    for places, run in zip(_runs_in(pieces), runs, strict=False):
        kinds = [kind for kind, text in run for c in text if not c.isspace()]
        letters = "".join(c for _, text in run for c in text if not c.isspace())
        first = places[0] if places else 0
        if places and first == 0 and not _agree(pieces, places, letters):
            places = places[1:]  # the row begins with BOS, which no segment says
        if not places or not _agree(pieces, places, letters):
            continue
        at = 0
        for place in places:
            piece, size = pieces[place], len(_inked(pieces[place].text))
            own = kinds[at : at + size] or kinds[at - 1 : at]
            if piece.kind == "text" and own and set(own) == {"control"}:
                found[place] = replace(piece, kind="control")
            at += size
    return found


def _agree(pieces: Sequence[Piece], places: Iterable[int], letters: str) -> bool:
    return "".join(_inked(pieces[place].text) for place in places) == letters


def _inked(text: str) -> str:
    return "".join(c for c in text if not c.isspace())


def _runs_of(segments: Sequence[Segment]) -> list[list[tuple[str, str]]]:
    """Text between media and learned turns, as (kind, text)."""
    runs: list[list[tuple[str, str]]] = [[]]
    for segment in segments:
        if segment.kind in ("control", "said"):
            runs[-1].append((segment.kind, unescape_marks(segment.text)))
        else:
            runs.append([])
    return runs


def _runs_in(pieces: Sequence[Piece]) -> list[list[int]]:
    """The same of a row, as places of pieces; learned pieces in a row count as one."""
    runs: list[list[int]] = [[]]
    for place, piece in enumerate(pieces):
        if piece.kind in ("image", "audio"):
            runs.append([])
        elif not piece.learned:
            runs[-1].append(place)
        elif not place or not pieces[place - 1].learned:
            runs.append([])
    return runs

"""What a SentencePiece model file says of itself, read from its bytes; its library does not tell all of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of a piece
UNIGRAM, BPE = 1, 2  # types of a model


@dataclass(frozen=True)
class Piece:
    """One word of the vocabulary."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceFile:
    """Fields of `sentencepiece_model.proto` that decide how text is cut."""

    pieces: tuple[Piece, ...]
    model_type: int
    byte_fallback: bool
    charsmap: bytes  # normalisation table; empty: none
    dummy_prefix: bool  # a blank before the text
    squeeze: bool  # blanks at the ends are dropped, and of several one is kept


def read(model: bytes) -> SentencePieceFile:
    """The file's bytes -> its fields. Numbers are those of the format's definition (google/sentencepiece)."""
    pieces: list[Piece] = []
    trainer: dict[int, bytes | int] = {}
    normalizer: dict[int, bytes | int] = {}
    for number, value in _fields(model):
        if number == 1 and isinstance(value, bytes):
            inner = dict(_fields(value))
            score = inner.get(2, 0)
            pieces.append(
                Piece(
                    bytes(inner.get(1, b"")).decode("utf-8"),  # type: ignore[arg-type]
                    struct.unpack("<f", score)[0] if isinstance(score, bytes) else 0.0,
                    int(inner.get(3, NORMAL)),
                )
            )
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
    charsmap = normalizer.get(2, b"")
    return SentencePieceFile(
        pieces=tuple(pieces),
        model_type=int(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        dummy_prefix=bool(normalizer.get(3, 1)),
        squeeze=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of a protobuf message: whole numbers as such, all else as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"byte {at} of the SentencePiece model holds a field of unknown kind {kind}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at

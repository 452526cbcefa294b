"""How much of a sound file is there, by its container's own headers: libsndfile reads a cut-off file without a word."""

from __future__ import annotations

MPEG = ("MP3", "MPEG")
_MPEG_SLACK = 2 * 1152  # frames: a packet and the padding of encoder and decoder
_LEADING = 1 << 16  # bytes among which the tag with the number of packets is looked for
_STREAM = 0x7FFFFFFF  # sizes from here on mean "a stream of unknown length"


def share_held(data: bytes, container: str) -> float:
    """The share of its bytes that a file still holds: 1.0 for a whole one, or where the container does not say."""
    if container in ("WAV", "WAVEX") and data[:4] == b"RIFF":
        return _riff_share(data)
    if container == "AIFF" and data[:4] == b"FORM":
        return _share(len(data) - 8, int.from_bytes(data[4:8], "big"))
    if container == "OGG":
        return _ogg_share(data)
    return 1.0


def slack(data: bytes, container: str) -> float:
    """How many frames fewer than promised may be found in a whole file."""
    if container not in MPEG:
        return 0
    counted = any(tag in data[:_LEADING] for tag in (b"Xing", b"Info", b"VBRI"))
    return _MPEG_SLACK if counted else float("inf")  # without the tag the length is a guess from the first packet


def _share(held: int, size: int) -> float:
    return held / size if 0 < held < size < _STREAM else 1.0


def _riff_share(data: bytes) -> float:
    """By the `data` chunk."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return _share(len(data) - at - 8, size)
        at += 8 + size + (size & 1)
    return 1.0


def _ogg_share(data: bytes) -> float:
    """By the last page: 27 bytes, a table of segment lengths, the segments."""
    at = data.rfind(b"OggS")
    segments = data[at + 27 : at + 27 + data[at + 26]] if at >= 0 and at + 27 <= len(data) else b""
    if not segments or len(segments) < data[at + 26]:
        return 0.5  # the page breaks off inside its own header; how much was to follow is unknown
    return _share(len(data), at + 27 + len(segments) + sum(segments))

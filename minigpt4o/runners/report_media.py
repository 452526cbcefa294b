"""Pictures and sounds as data: URIs for a page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import open_audio
from minigpt4o.processors.image import open_image
from minigpt4o.runners.evaluate_items import one_key
from minigpt4o.runners.report_html import packed

log = logging.getLogger(__name__)

LONGEST_SIDE = 320  # pixels of a picture in a page
SMALL_SIDE = 128  # a picture of so many pixels a side keeps every one of them
LONGEST_SOUND_S = 6.0
SOUND_RATE = 16_000  # samples per second at most
SPECTRUM = (240, 64)  # width, height of a spectrogram in pixels
LEFT_OUT = "left out to keep the report small"
_WINDOW = 512
# Dark to bright, as (position, red, green, blue); between them colours are mixed.
_HEAT = ((0.0, 13, 12, 42), (0.35, 101, 26, 108), (0.65, 214, 72, 62), (0.85, 250, 158, 59), (1.0, 252, 246, 190))


@dataclass(frozen=True)
class Picture:
    """A picture ready for the page; `problem` stands in for what cannot be shown."""

    uri: str = ""
    width: int = 1  # of the original
    height: int = 1
    problem: str = ""


@dataclass(frozen=True)
class Sound:
    """A sound ready for the page."""

    uri: str = ""
    spectrum: str = ""  # picture of it
    seconds: float = 0.0  # of the original, as far as it was opened
    problem: str = ""


@dataclass
class Shelf:
    """The media of a page, each once, whoever shows it; beyond the budget they are left out and say so."""

    budget: int  # characters
    items: list[dict[str, Any]] = field(default_factory=list)
    used: int = 0
    left_out: int = 0
    _places: dict[tuple, int] = field(default_factory=dict)

    def place(self, media: Media, kind: str) -> int:
        """Where a picture ("image") or sound ("audio") stands among the items."""
        key = (kind, *one_key(media))
        if key not in self._places:
            item = _item(media, kind) if self.used < self.budget else {}
            size = len(packed(item)) + 1
            if not item or self.used + size > self.budget:
                self.left_out += 1
                self._places[key] = self._left_out(kind)
            else:
                self.used += size
                self._places[key] = self._put(item)
        return self._places[key]

    def _left_out(self, kind: str) -> int:
        """One item stands for all that are left out."""
        if (kind,) not in self._places:
            self._places[kind,] = self._put({"kind": kind, "problem": LEFT_OUT})
        return self._places[kind,]

    def _put(self, item: dict[str, Any]) -> int:
        self.items.append(item)
        return len(self.items) - 1


def _item(media: Media, kind: str) -> dict[str, Any]:
    shown: Picture | Sound = picture(media) if kind == "image" else sound(media)
    if shown.problem:
        return {"kind": kind, "problem": shown.problem}
    return {"kind": kind, **{k: v for k, v in vars(shown).items() if k != "problem"}}


def data_uri(data: bytes, kind: str) -> str:
    """Bytes inside a page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture(media: Media) -> Picture:
    """A picture of at most 320 pixels a side, upright; very small ones as they are."""
    try:
        image = open_image(media)
    except SkipSample as skip:
        return Picture(problem=str(skip))
    original = image.size
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    exact = max(original) <= SMALL_SIDE
    out = io.BytesIO()
    if exact:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=82)
    return Picture(data_uri(out.getvalue(), "image/png" if exact else "image/jpeg"), *original)


def sound(media: Media) -> Sound:
    """A sound of at most 6 seconds as 16-bit FLAC at 16 kHz or less, with its spectrogram."""
    try:
        samples, rate = open_audio(media)
    except SkipSample as skip:
        return Sound(problem=str(skip))
    seconds = len(samples) / rate
    samples = samples[: int(LONGEST_SOUND_S * rate)]
    if rate > SOUND_RATE:
        samples, rate = _slower(samples, rate), SOUND_RATE
    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return Sound(data_uri(out.getvalue(), "audio/flac"), data_uri(spectrogram(samples), "image/png"), seconds)


def _slower(samples: np.ndarray, rate: int) -> np.ndarray:
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(np.ascontiguousarray(samples)), rate, SOUND_RATE).numpy()


def spectrogram(samples: np.ndarray) -> bytes:
    """PNG of the log power spectrum: time to the right, pitch upwards (mel-like spacing), 80 dB deep."""
    columns, rows = SPECTRUM
    padded = np.pad(samples.astype(np.float64), (_WINDOW // 2, _WINDOW))
    starts = np.linspace(0, max(len(samples) - 1, 0), columns).astype(int)
    frames = padded[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = ((np.linspace(0, 1, rows + 1) ** 1.7) * (power.shape[1] - 1)).astype(int)
    bands = np.stack([power[:, a : max(b, a + 1)].max(axis=1) for a, b in pairwise(edges)])
    level = 10 * np.log10(bands + 1e-12)
    shade = np.clip((level - level.max() + 80) / 80, 0, 1)[::-1]
    return heat(shade)


def heat(shade: np.ndarray) -> bytes:
    """PNG of a grid (rows, columns) of numbers between 0 (dark) and 1 (bright)."""
    stops, colours = [s[0] for s in _HEAT], np.array([s[1:] for s in _HEAT], dtype=float)
    pixels = np.stack([np.interp(shade, stops, colours[:, c]) for c in range(3)], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    # 64 colours, not dithered: a third of the bytes, and nobody sees the difference in a spectrogram.
    Image.fromarray(pixels).quantize(64, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()

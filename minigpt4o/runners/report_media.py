"""Pictures and sounds as data: URIs for a page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
import logging
import wave as wave_file
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.sample import Box, Media
from minigpt4o.processors.audio import open_audio
from minigpt4o.processors.image import open_image

log = logging.getLogger(__name__)

LONGEST_SIDE = 320  # pixels of a picture in the report
LONGEST_SOUND_S = 6.0
SPECTRUM = (240, 64)  # width, height of a spectrogram in pixels
_WINDOW = 512
# Dark to bright, as (position, red, green, blue); between them colours are mixed.
_HEAT = ((0.0, 13, 12, 42), (0.35, 101, 26, 108), (0.65, 214, 72, 62), (0.85, 250, 158, 59), (1.0, 252, 246, 190))


@dataclass(frozen=True)
class Picture:
    """A picture ready for the page; `problem` stands in for what cannot be shown."""

    uri: str = ""
    width: int = 1
    height: int = 1
    problem: str = ""


@dataclass(frozen=True)
class Sound:
    """A sound ready for the page."""

    uri: str = ""
    spectrum: str = ""  # picture of it
    seconds: float = 0.0
    problem: str = ""


def data_uri(data: bytes, kind: str) -> str:
    """Bytes inside a page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture(media: Media) -> Picture:
    """A picture of at most 320 pixels a side; small ones as they are."""
    try:
        image = open_image(media)
    except SkipSample as skip:
        return Picture(problem=str(skip))
    original = image.size
    small = max(image.size) <= LONGEST_SIDE
    if not small:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    out = io.BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=82)
    return Picture(data_uri(out.getvalue(), "image/png" if small else "image/jpeg"), *original)


def sound(media: Media) -> Sound:
    """A sound of at most 6 seconds as 16-bit WAV, with its spectrogram."""
    try:
        samples, rate = open_audio(media)
    except SkipSample as skip:
        return Sound(problem=str(skip))
    seconds = len(samples) / rate
    samples = samples[: int(LONGEST_SOUND_S * rate)]
    out = io.BytesIO()
    with wave_file.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return Sound(data_uri(out.getvalue(), "audio/wav"), data_uri(spectrogram(samples), "image/png"), seconds)


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
    stops, colours = [s[0] for s in _HEAT], np.array([s[1:] for s in _HEAT], dtype=float)
    pixels = np.stack([np.interp(shade, stops, colours[:, c]) for c in range(3)], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def box_rectangles(shown: Picture, boxes: Sequence[Box], css: str) -> str:
    """SVG rectangles in the picture's own pixels."""
    stroke = max(shown.width, shown.height) / 90
    lines = []
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy
        sx, sy = shown.width / max(box.image_size[0], 1), shown.height / max(box.image_size[1], 1)
        lines.append(
            f'<rect class="{css}" x="{x1 * sx:.2f}" y="{y1 * sy:.2f}" width="{max(x2 - x1, 0) * sx:.2f}" '
            f'height="{max(y2 - y1, 0) * sy:.2f}" stroke-width="{stroke:.2f}"/>'
        )
    return "".join(lines)

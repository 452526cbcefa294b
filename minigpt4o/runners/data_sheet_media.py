"""Pictures and sounds of a sample for a page: the original, and what the processor makes of it for the model."""

from __future__ import annotations

import io
import random
import wave as wave_file
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minigpt4o.common.errors import SkipSample
from minigpt4o.conversation.boxes import BoxError, box_text
from minigpt4o.conversation.objects import Geometry, seen
from minigpt4o.conversation.sample import Box, Media, Rounding
from minigpt4o.processors.audio import Long, open_clip
from minigpt4o.processors.resampling import resample
from minigpt4o.runners.report_media import LONGEST_SIDE, Picture, Sound, data_uri, heat, picture

COLUMNS = 480  # of a sound's picture at most; more frames are averaged
PLAYED_S = 10.0  # of a sound whose processor does not say how much the model hears
_HZ = 16_000


@dataclass(frozen=True)
class Outlined:
    """One box, in the original picture and where the model sees it."""

    original: Box
    shown: Box | None  # None: nothing of it is in sight
    text: str = ""  # as the model reads it


@dataclass(frozen=True)
class Pictured:
    """One picture twice, and its boxes."""

    original: Picture
    shown: Picture
    boxes: list[Outlined] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the boxes among all of the sample, from 1


@dataclass(frozen=True)
class Heard:
    """One sound: a player, and the log-mel frames that the model gets."""

    sound: Sound
    note: str = ""  # what of it is heard


def pictured(
    media: Media,
    tensor: Tensor,
    processor: Any,
    boxes: Sequence[tuple[int, Box]],
    geometry: Geometry | None,
    how: Rounding,
) -> Pictured:
    """`boxes` are (number, box in the original frame); without a geometry the model is shown the whole picture."""
    outlined = [_outlined(box, geometry, how) for _, box in boxes]
    return Pictured(picture(media), _of_tensor(tensor, processor), outlined, [number for number, _ in boxes])


def _outlined(box: Box, geometry: Geometry | None, how: Rounding) -> Outlined:
    try:
        shown = box if geometry is None or geometry.whole else seen(box, geometry)
        return Outlined(box, shown, box_text(shown, how))
    except BoxError:
        return Outlined(box, None)


def _of_tensor(tensor: Tensor, processor: Any) -> Picture:
    """(3, S, S) normalised -> the picture that it is."""
    owner: Any = processor if hasattr(processor, "mean") else getattr(processor, "square", None)
    if isinstance(getattr(owner, "mean", None), Tensor):
        level = tensor * owner.std + owner.mean
    else:  # a processor that does not say how it normalises: from darkest to brightest
        level = (tensor - tensor.min()) / (tensor.max() - tensor.min()).clamp_min(1e-6)
    pixels = (level.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    size = image.size
    out = io.BytesIO()
    if max(size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        image.save(out, "JPEG", quality=88)
        return Picture(data_uri(out.getvalue(), "image/jpeg"), *size)
    image.save(out, "PNG", optimize=True)
    return Picture(data_uri(out.getvalue(), "image/png"), *size)


def heard(media: Media, tensor: Tensor, processor: Any) -> Heard:
    """(F, K) log-mel frames, and a player of the part of the recording that they show."""
    config = getattr(processor, "config", None)
    seconds: float = getattr(config, "seconds", PLAYED_S)
    long: Long = getattr(config, "long", "cut")
    spectrum = data_uri(_mel(tensor), "image/png")
    try:
        clip = open_clip(media, seconds, long, random.Random(0))
    except SkipSample as skip:
        return Heard(Sound(problem=str(skip)))
    rate = min(clip.rate, getattr(config, "sample_rate", _HZ))
    samples = resample(torch.from_numpy(clip.wave), clip.rate, rate).numpy()
    sound = Sound(data_uri(_wav(samples, rate), "audio/wav"), spectrum, clip.seconds)
    frames, bins = tensor.shape
    note = f"{clip.seconds:.1f} s, {clip.rate:,} Hz; the model gets {frames} frames of {bins} mel bins"
    if clip.lost > 0:
        which = {"cut": "the beginning", "centre": "the middle", "random": "some part, another each time"}.get(long, "")
        note += f" of {seconds:g} s: {which}; {clip.lost:.1f} s are not heard"
    return Heard(sound, note)


def _wav(samples: np.ndarray, rate: int) -> bytes:
    """16-bit mono WAV of a wave between -1 and 1."""
    out = io.BytesIO()
    with wave_file.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def _mel(tensor: Tensor) -> bytes:
    """PNG of log-mel frames: time to the right, pitch upwards; frames that count as absent are dark."""
    frames = tensor.float()
    if len(frames) > COLUMNS:
        frames = torch.nn.functional.adaptive_avg_pool1d(frames.T.unsqueeze(0), COLUMNS)[0].T
    there = frames[torch.isfinite(frames)]
    low, high = (float(there.min()), float(there.max())) if there.numel() else (0.0, 1.0)
    shade = torch.nan_to_num((frames - low) / max(high - low, 1e-6), 0.0).clamp(0, 1)
    return heat(shade.T.flip(0).numpy())

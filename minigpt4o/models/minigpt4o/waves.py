"""What people pass as sound, brought to one form: mono clips of float32 samples, or an error that says what it was."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import numpy as np
import torch

# L samples of one clip

# Integer sound is stored around a middle: type -> (middle, largest step away from it).
INTEGER_SOUND = {"int8": (0, 1 << 7), "uint8": (1 << 7, 1 << 7), "int16": (0, 1 << 15), "int32": (0, 1 << 31)}
NOT_SAMPLES = (str, bytes, Path, dict, type(None))
MOST_CHANNELS = 8  # a last axis this short holds channels, not samples


def mono_waves(sound: Any) -> list[np.ndarray]:
    """Whatever holds one mono clip or several, as a list of (L,) float32 arrays. Raises ValueError."""
    if isinstance(sound, list | tuple):
        clips = [sound] if sound and isinstance(sound[0], numbers.Number) else list(sound)
    elif isinstance(sound, NOT_SAMPLES):
        clips = [sound]
    else:
        sound = _array(sound)
        clips = [sound] if sound.ndim < 2 or 1 in sound.shape[1:] else list(sound)
        if sound.ndim == 2 and 1 < sound.shape[1] <= MOST_CHANNELS < sound.shape[0]:
            raise ValueError(_channels("raw_speech", sound.shape))
    if not clips:
        raise ValueError("raw_speech holds no clip: give at least one")
    return [_wave(clip, f"clip {number} of {len(clips)}") for number, clip in enumerate(clips, start=1)]


def _wave(clip: Any, where: str) -> np.ndarray:
    """One clip as (L,) float32."""
    if isinstance(clip, NOT_SAMPLES):
        raise ValueError(
            f"{where} is {clip!r:.80}; samples are wanted: open the file first, for example with "
            "transformers.audio_utils.load_audio(path, sampling_rate)"
        )
    wave = _array(clip)
    if wave.ndim == 2 and 1 in wave.shape:
        wave = wave.reshape(-1)
    if wave.ndim != 1:
        raise ValueError(_channels(where, wave.shape))
    if not len(wave):
        raise ValueError(f"{where} is empty: leave it out, or give at least one sample")
    kind = str(wave.dtype)
    if kind in INTEGER_SOUND and not isinstance(clip, list | tuple):
        middle, largest = INTEGER_SOUND[kind]
        wave = (wave.astype(np.float64) - middle) / largest
    elif not (wave.dtype.kind == "f" or (isinstance(clip, list | tuple) and wave.dtype.kind in "iu")):
        raise ValueError(
            f"{where} holds {kind}: give floats within -1 ... 1, or integers of a sound file, which are scaled "
            f"({', '.join(INTEGER_SOUND)})"
        )
    wave = wave.astype(np.float32, copy=False)
    if not np.isfinite(wave).all():
        bad = int(np.flatnonzero(~np.isfinite(wave))[0])
        raise ValueError(f"{where}: sample {bad} is {wave[bad]}, not a finite number; repair or leave out the clip")
    return wave


def _array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"a clip must be a plain row of numbers: {error}") from error


def _channels(where: str, shape: tuple[int, ...]) -> str:
    return (
        f"{where} has shape {shape}, one mono clip is (samples,): average the channels first "
        f"(wave.mean(axis={int(np.argmin(shape)) if shape else 0})), or give several clips as a list"
    )

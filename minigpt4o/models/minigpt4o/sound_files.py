"""Open what a chat or a call names as sound (path, URL, base64, samples): mono clips at the rate that is wanted."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigpt4o.models.minigpt4o.waves import mono_waves

DOWNLOAD_SECONDS = 30.0


def open_clips(sound: Any, rate: int, most_seconds: float | None = None, cut: bool = False) -> list[np.ndarray]:
    """Every clip in `sound` as (samples,) float32: one clip or a list of clips, also a list of lists of them.

    A clip is a path, a URL, base64 text, `{"array": ..., "sampling_rate": ...}`, an array, a tensor or a list of
    numbers. Files are resampled to `rate`; samples that say another rate are refused.
    Raises ValueError: unreadable, empty, not finite, several channels of samples, longer than `most_seconds` (`cut`
    keeps the beginning in its place).
    """
    waves, names = [], []
    for number, one in enumerate(_flat(sound), 1):
        if isinstance(one, str | Path):
            wave, name = _decoded(one, rate, most_seconds, cut)
        else:
            name = f"clip {number}"
            wave = _samples(one, rate, name)
        waves.append(wave)
        names.append(name)
    clips = mono_waves(waves) if waves else []
    for clip, name in zip(clips, names, strict=True):
        check_length(len(clip) / rate, None if cut else most_seconds, name)
    return clips


def check_length(seconds: float, most: float | None, where: str) -> None:
    if not seconds:
        raise ValueError(f"{where} is empty: leave it out, or give at least one sample")
    if most is not None and seconds > most:
        raise ValueError(
            f"{where} lasts {seconds:.2f} s, the model hears at most {most:.2f} s: cut it into several clips, or let "
            'the end be cut off with audio_kwargs={"truncation": True}'
        )


def _flat(sound: Any) -> list[Any]:
    """The clips in whatever was given: an array of two axes holds clips, a list of numbers is one clip."""
    if isinstance(sound, list | tuple):
        return _flat_list(sound)
    if isinstance(sound, str | Path | Mapping) or np.ndim(sound) < 2:
        return [sound]
    return list(mono_waves(sound))


def _flat_list(sound: list | tuple) -> list[Any]:
    first = sound[0] if len(sound) else ""
    if np.ndim(first) == 0 and not isinstance(first, str | Path | Mapping):
        return [sound]
    return [clip for one in sound for clip in (_flat_list(one) if isinstance(one, list | tuple) else [one])]


def _samples(clip: Any, rate: int, where: str) -> Any:
    if not isinstance(clip, Mapping):
        return clip
    if "array" not in clip:
        raise ValueError(
            f"{where} is a mapping of {', '.join(map(str, clip)) or 'nothing'}: it needs array, sampling_rate"
        )
    has = clip.get("sampling_rate", rate)
    if has != rate:
        raise ValueError(
            f"{where} has {has} samples per second, the model wants {rate}: resample it first, for example "
            f"torchaudio.functional.resample(wave, {has}, {rate})"
        )
    return clip["array"]


def _decoded(source: str | Path, rate: int, most: float | None, cut: bool) -> tuple[np.ndarray, str]:
    """A sound file as (samples,) float32 at `rate`, and what to call it."""
    import soundfile

    source = str(source)
    told = source if len(source) < 200 else f"{source[:80]}..."
    try:
        with soundfile.SoundFile(_opened(source, told)) as file:
            check_length(file.frames / file.samplerate, None if cut else most, told)
            frames = -1 if most is None else int(most * file.samplerate) + 1
            wave = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
            has = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise ValueError(f"{told}: not a sound that can be read ({error}); WAV, FLAC, OGG and MP3 can") from error
    return _resampled(wave, has, rate), told


def _resampled(wave: np.ndarray, has: int, wants: int) -> np.ndarray:
    if has == wants:
        return wave
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(wave), has, wants).numpy()


def _opened(source: str, told: str) -> str | io.BytesIO:
    if source.startswith(("http://", "https://")):
        return io.BytesIO(_fetched(source))
    if os.path.isfile(source):
        return source
    text = source.split(",", 1)[-1] if source.startswith("data:") else source
    try:
        return io.BytesIO(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError(f"{told}: no such sound file (nor a URL, nor base64 text)") from None


def _fetched(url: str) -> bytes:
    import httpx

    try:
        answer = httpx.get(url, follow_redirects=True, timeout=DOWNLOAD_SECONDS)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ValueError(f"{url}: the sound cannot be fetched ({error})") from error
    return answer.content

"""Make a sound of the toy world: 1.2 s at 16 kHz, one kind of event at a low or high pitch, one to three times."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from minigpt4o.datasets.toy_world.world import Noise

RATE = 16_000  # samples per second
SECONDS = 1.2
TONE_BAND = {"low": (200.0, 320.0), "high": (1200.0, 1700.0)}  # Hz, of the fundamental
HISS_BAND = {"low": (200.0, 900.0), "high": (3000.0, 6500.0)}  # Hz
TOP = 7600.0  # no partial above this, Hz
BELL_PARTIALS = ((1.0, 1.0), (2.76, 0.6), (5.40, 0.35), (8.93, 0.2))  # (ratio, loudness) of a struck bar


def wave_of(noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """(samples,) float32 between -1 and 1; `rng` serves pitch, loudness, length, onset and the noise floor."""
    wave = rng.normal(0.0, rng.uniform(0.0005, 0.003), round(RATE * SECONDS))
    length = round(RATE * rng.uniform(0.20, 0.27))
    spacing = round(RATE * rng.uniform(0.33, 0.36))
    start = round(RATE * rng.uniform(0.02, 0.15))
    loudness = rng.uniform(0.3, 0.6)
    base = rng.uniform(*TONE_BAND[noise.pitch])
    for i in range(noise.count):
        event = _event(noise, length, base, rng)
        event *= loudness * rng.uniform(0.9, 1.1) / max(float(np.abs(event).max()), 1e-9)
        at = start + i * spacing
        wave[at : at + length] += event
    return np.clip(wave, -1.0, 1.0).astype(np.float32)


def encode(wave: np.ndarray, format: str) -> bytes:
    """The wave as a 16-bit WAV or FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=format.upper(), subtype="PCM_16")
    return file.getvalue()


def _event(noise: Noise, length: int, base: float, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(length) / RATE
    if noise.kind == "beep":
        event = np.sin(2 * np.pi * base * t)
    elif noise.kind in ("rising", "falling"):
        event = _sweep(base, t, up=noise.kind == "rising")
    elif noise.kind == "bell":
        event = _bell(base, t)
    elif noise.kind == "buzz":
        odd = np.arange(1, TOP / base, 2)
        event = (np.sin(2 * np.pi * base * odd[:, None] * t) / odd[:, None]).sum(0)
    else:
        assert noise.kind == "hiss", f"no such sound: {noise.kind}"
        event = _hiss(HISS_BAND[noise.pitch], length, rng)
    return event * _fade(length)


def _sweep(base: float, t: np.ndarray, up: bool) -> np.ndarray:
    """One octave and a bit, exponentially in time."""
    octaves = 1.3 if up else -1.3
    start = base * 0.8 if up else base * 0.8 * 2**1.3
    rate = octaves * np.log(2) / t[-1]
    return np.sin(2 * np.pi * start * (np.exp(rate * t) - 1) / rate)


def _bell(base: float, t: np.ndarray) -> np.ndarray:
    event = np.zeros_like(t)
    for ratio, loudness in BELL_PARTIALS:
        if base * ratio < TOP:
            event += loudness * np.exp(-t * (9 + 3 * ratio)) * np.sin(2 * np.pi * base * ratio * t)
    return event


def _hiss(band: tuple[float, float], length: int, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.normal(size=length))
    pitch = np.fft.rfftfreq(length, 1 / RATE)
    return np.fft.irfft(spectrum * ((pitch >= band[0]) & (pitch <= band[1])), length)


def _fade(length: int) -> np.ndarray:
    """Four milliseconds in, fifteen out, so that an event does not click."""
    fade = np.ones(length)
    rise, fall = RATE * 4 // 1000, RATE * 15 // 1000
    fade[:rise] = np.linspace(0, 1, rise)
    fade[-fall:] = np.linspace(1, 0, fall)
    return fade

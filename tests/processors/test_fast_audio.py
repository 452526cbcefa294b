"""Fast ways to the same sound: plain PCM, resampling and log-mel equal the exact ones but for rounding."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import soundfile
import torch

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import open_clip
from minigpt4o.processors.resampling import _bank, resample

ROUNDING = 1e-6  # of the loudest sample


def log_mel(engine: str, **values: object):
    return registry.build(Part("processor", "log_mel", {"seconds": 0.5, "engine": engine, **values}))


@pytest.mark.parametrize("rate", [2003, 8000, 11025, 16001, 22050, 24000, 44100, 44101, 48000, 96000, 383_999])
def test_resampling_without_the_zeros_of_the_filters_gives_the_same_sound(rate: int) -> None:
    draw = random.Random(rate)
    for length in (1, 2, 17, 999, draw.randrange(1, 50_000)):
        wave = torch.randn(length, generator=torch.Generator().manual_seed(length))
        exact, fast = resample(wave, rate, 16000), resample(wave, rate, 16000, fast=True)
        assert exact.shape == fast.shape
        assert (exact - fast).abs().max() <= ROUNDING * wave.abs().max(), length
        assert torch.equal(resample(torch.cat([wave, wave])[length:], rate, 16000, fast=True), fast)  # a part of a wave


def test_the_filters_for_44100_hold_no_more_taps_than_they_hear() -> None:
    taps = [len(block) for _, block in _bank(441, 160).blocks]
    assert len(taps) == 10 and max(taps) <= 76  # torchaudio keeps 475


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"n_mels": 80, "n_fft": 512},
        {"n_mels": 7, "sample_rate": 22050, "n_fft": 1024},
        {"window_ms": 64, "hop_ms": 16, "n_fft": 1025},
        {"hop_ms": 50, "seconds": 0.05},
        {"f_min": 300.0, "f_max": 3000.0, "n_mels": 17},
    ],
)
def test_the_fast_log_mel_is_the_exact_one(values: dict[str, object]) -> None:
    exact, fast = log_mel("exact", **values), log_mel("fast", **values)
    for seed, rate in enumerate((16000, 44100, 8000, 22050)):
        wave = np.random.default_rng(seed).normal(0, 0.1, rate // 2 - 7 * seed).astype(np.float32)
        one, two = exact.tensor(wave, rate), fast.tensor(wave, rate)
        assert one.shape == two.shape and one.dtype == two.dtype
        assert (one - two).abs().max() < 1e-3, rate
        assert (one - two).abs().mean() < 1e-5, rate
    silence = np.zeros(4000, np.float32)
    assert torch.equal(exact.tensor(silence, 16000), fast.tensor(silence, 16000))


def test_auto_changes_no_bit_of_a_sound_that_comes_at_the_wanted_rate() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    exact, fast, auto = map(log_mel, ("exact", "fast", "auto"))
    assert torch.equal(auto.tensor(wave, 16000), exact.tensor(wave, 16000))
    assert torch.equal(auto.tensor(wave, 44100), fast.tensor(wave, 44100))


@pytest.mark.parametrize("format", ["WAV", "WAVEX", "AIFF"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_plain_pcm_gives_the_numbers_that_libsndfile_makes_of_it(format: str, channels: int) -> None:
    whole = np.random.default_rng(0).integers(-32768, 32768, (4000, channels)).astype(np.int16)
    whole[:2] = [[-32768] * channels, [32767] * channels]
    file = io.BytesIO()
    soundfile.write(file, whole, 16000, format=format, subtype="PCM_16")
    theirs, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32", always_2d=True)
    ours = open_clip(Media(data=file.getvalue(), name="x"), 9.0).wave
    assert np.array_equal(ours, theirs.mean(axis=1) if channels > 1 else theirs[:, 0])

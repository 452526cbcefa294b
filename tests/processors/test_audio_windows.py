"""Long recordings: the part that is taken is the one asked for, the seconds left out are counted, rates are met."""

import io
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample as reference

from minigpt4o.common.errors import SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import open_clip
from minigpt4o.processors.resampling import resample, simple_ratio

SHARED = Path(os.environ.get("MINIGPT4O_TEST_DATA", "../shared/data")) / "audio_formats"


def encoded(wave, rate=16000, format="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format, subtype=subtype)
    return Media(data=file.getvalue(), name=f"test.{format.lower()}")


def stairs(seconds=6, rate=16000):
    """Each second is louder than the one before: 0.1, 0.2, ... so that a window tells where it comes from."""
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    return np.concatenate([(i + 1) / 10 * tone for i in range(seconds)]).astype(np.float32)


def loudness(wave):
    return float(np.abs(wave).max())


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF", "MP3"])
def test_the_first_the_middle_or_a_drawn_part_is_taken(format):
    media = encoded(stairs(), format=format)
    for long, loud in (("cut", 0.2), ("centre", 0.4)):
        clip = open_clip(media, 2.0, long)
        assert len(clip.wave) == 32000
        assert loudness(clip.wave) == pytest.approx(loud, abs=0.05)
        assert clip.lost == pytest.approx(4.0, abs=0.1)
        assert clip.start == pytest.approx(0.0 if long == "cut" else 2.0, abs=0.1)
    starts = {round(open_clip(media, 2.0, "random", random.Random(seed)).start, 3) for seed in range(8)}
    assert len(starts) > 5
    assert all(0 <= start <= 4.1 for start in starts)
    once = [open_clip(media, 2.0, "random", random.Random(3)) for _ in range(2)]
    assert np.array_equal(once[0].wave, once[1].wave)
    assert open_clip(media, 2.0, "random").start == open_clip(media, 2.0, "centre").start


def test_a_short_recording_is_whole_whatever_is_asked():
    media = encoded(stairs(2))
    for long in ("cut", "centre", "random"):
        clip = open_clip(media, 5.0, long, random.Random(0))
        assert (len(clip.wave), clip.start, clip.lost) == (32000, 0.0, 0.0)


def test_a_cut_file_is_noticed_where_the_missing_part_is_asked_for():
    data = encoded(stairs()).data
    cut = Media(data=data[: len(data) // 2], name="cut.wav")
    assert open_clip(cut, 2.0, "cut").lost == pytest.approx(4.0)
    with pytest.raises(SkipSample) as caught:
        open_clip(cut, 5.0, "centre")
    assert caught.value.reason in ("short_audio", "unreadable_audio")


@pytest.mark.parametrize("name", ["log_mel", "minigpt4o_audio"])
def test_the_seconds_left_out_are_counted(name):
    processor = registry.build(Part("processor", name, {"seconds": 1.5}))
    processor(encoded(stairs(1)), random.Random(0))
    assert processor.facts == {}
    for _ in range(2):
        processor(encoded(stairs(6)), random.Random(0))
    assert processor.facts == {"audio_cut_clips": 2, "audio_cut_seconds": pytest.approx(9.0)}
    processor.tensor(stairs(6), 16000)


@pytest.mark.parametrize("name", ["log_mel", "minigpt4o_audio"])
def test_a_processor_hears_the_part_it_was_told_to(name):
    media = encoded(stairs(), subtype="FLOAT")
    parts = {"cut": stairs()[:32000], "centre": stairs()[32000:64000]}
    for long, wave in parts.items():
        processor = registry.build(Part("processor", name, {"seconds": 2.0, "long": long}))
        assert torch.allclose(processor(media), processor.tensor(wave, 16000), atol=1e-5, equal_nan=True), long
    drawn = registry.build(Part("processor", name, {"seconds": 2.0, "long": "random"}))
    assert not torch.equal(drawn(media, random.Random(1)), drawn(media, random.Random(2)))


@pytest.mark.parametrize("name", ["log_mel", "minigpt4o_audio"])
def test_recordings_beyond_the_limits_are_skipped(name):
    for limit in ({"max_seconds": 5.0}, {"max_bytes": 100_000}):
        processor = registry.build(Part("processor", name, {"seconds": 2.0, **limit}))
        assert torch.isfinite(processor(encoded(stairs(3)))).any()
        with pytest.raises(SkipSample) as caught:
            processor(encoded(stairs(6)))
        assert caught.value.reason == "audio_too_long"


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000, 96000])
def test_usual_rates_are_resampled_number_for_number_as_torchaudio_does(rate):
    wave = torch.from_numpy(stairs(1, rate))
    assert torch.equal(resample(wave, rate, 16000), reference(wave, rate, 16000))
    assert simple_ratio(rate, 16000)[0] * 16000 == simple_ratio(rate, 16000)[1] * rate


def test_an_odd_rate_costs_no_gigabytes_and_keeps_the_pitch():
    for rate in (44101, 383_999, 2003, 65_537):
        over, under = simple_ratio(rate, 16000)
        assert over * under <= 1 << 20
        assert over / under == pytest.approx(rate / 16000, rel=1e-4)
    rate = 44101
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)
    sound = resample(tone, rate, 16000)
    assert abs(len(sound) - 16000) <= 2
    assert torch.fft.rfft(sound[:16000]).abs().argmax() == 440


@pytest.mark.parametrize(
    ("depth", "tolerance"), [("PCM_U8", 0.01), ("PCM_16", 1e-4), ("PCM_24", 1e-5), ("DOUBLE", 1e-6)]
)
def test_every_depth_and_channel_count_gives_the_same_wave(depth, tolerance):
    wave = stairs(1, 22050)
    for channels in (1, 2, 8):
        clip = open_clip(encoded(np.stack([wave] * channels, 1), 22050, subtype=depth), 2.0)
        assert (clip.rate, len(clip.wave)) == (22050, 22050)
        assert np.abs(clip.wave - wave).max() < tolerance, channels


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there (set MINIGPT4O_TEST_DATA)")
def test_one_recording_in_every_format_is_one_sound_at_16_khz():
    expected = json.loads((SHARED / "expected_soundfile.json").read_text())
    sounds = {}
    for name, truth in expected.items():
        clip = open_clip(Media(path=str(SHARED / name)), 30.0)
        assert (clip.rate, len(clip.wave), clip.lost) == (truth["sr"], truth["frames"], 0.0), name
        assert clip.seconds == pytest.approx(truth["seconds"], abs=0.06), name  # a packet of MP3 is padding
        sounds[name] = resample(torch.from_numpy(clip.wave), clip.rate, 16000)
    first = sounds["audio-mono-16-bit-44100Hz.wav"]
    alike = {name: sound for name, sound in sounds.items() if name.startswith("audio-")}
    assert len(alike) == 14
    for name, sound in alike.items():
        assert (sound - first).abs().max() < (0.01 if "8-bit" in name else 1e-3), name

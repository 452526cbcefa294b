"""Any ordinary sound becomes a mono wave or says why not; log-mel is fixed in size and true to pitch."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import open_audio

SHARED = Path(os.environ.get("MINIGPT4O_TEST_DATA", "../shared/data")) / "audio_formats"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not there (set MINIGPT4O_TEST_DATA)")


def tone(hertz=440.0, seconds=1.0, rate=16000, loudness=0.5):
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(wave, rate=16000, format="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format, subtype=subtype)
    return Media(data=file.getvalue(), name=f"test.{format.lower()}")


def cut(media, keep):
    return Media(data=media.data[: round(len(media.data) * keep)], name=media.name)


def reason(media):
    with pytest.raises(SkipSample) as caught:
        open_audio(media)
    assert str(media) in caught.value.detail
    return caught.value.reason


def log_mel(**values):
    return registry.build(Part("processor", "log_mel", values))


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_ordinary_formats_open(format):
    wave, rate = open_audio(encoded(tone(), format=format))
    assert (rate, wave.dtype, wave.ndim) == (16000, np.float32, 1)
    assert abs(len(wave) - 16000) <= 2 * 1152
    assert 0.45 < np.abs(wave).max() < 0.6


def test_channels_are_averaged_and_no_more_is_read_than_asked():
    left, right = tone(440), tone(660)
    wave, _ = open_audio(encoded(np.stack([left, right], 1), subtype="FLOAT"))
    assert np.allclose(wave, (left + right) / 2, atol=1e-6)
    wave, _ = open_audio(encoded(tone(seconds=3)), max_seconds=0.5)
    assert len(wave) == 8000


def test_a_long_silence_is_not_unpacked_whole():
    bomb = encoded(np.zeros(16000 * 600, np.int16), format="FLAC")
    assert len(bomb.data) < 200_000
    assert log_mel(seconds=1.0)(bomb).shape == (100, 64)


def test_damage_is_skipped_by_name(tmp_path):
    assert reason(Media(data=b"", name="empty.wav")) == "unreadable_audio"
    assert reason(Media(data=b"no sound at all" * 20, name="text.wav")) == "unreadable_audio"
    assert reason(Media(path=str(tmp_path / "nowhere.wav"))) == "missing_file"
    assert reason(encoded(np.zeros(0, np.float32))) == "short_audio"
    broken = tone()
    broken[100] = np.nan
    assert reason(encoded(broken, subtype="FLOAT")) == "unreadable_audio"
    assert reason(encoded(tone(), format="CAF")) == "forbidden_type"


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF", "MP3"])
def test_a_cut_file_is_not_taken_for_a_short_sound(format):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32)
    assert reason(cut(encoded(noise, format=format), 0.6)) in ("short_audio", "unreadable_audio")


@pytest.mark.parametrize("rate", [1, 655_350])
def test_an_absurd_rate_is_not_believed(rate):
    assert reason(encoded(tone(), rate=rate)) == "unreadable_audio"


def test_wave_files_of_a_stream_with_unknown_length_open():
    data = bytearray(encoded(tone()).data)
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    wave, _ = open_audio(Media(data=bytes(data), name="stream.wav"))
    assert len(wave) == 16000


# --- log-mel --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_size_does_not_depend_on_length_or_rate(seconds, rate):
    mel = log_mel(seconds=1.2)(encoded(tone(seconds=seconds, rate=rate), rate=rate))
    assert mel.shape == (120, 64)
    assert mel.dtype == torch.float32
    assert torch.isfinite(mel).all()


def test_a_higher_tone_lights_a_higher_bin_whatever_the_rate():
    processor = log_mel(seconds=1.0)
    bins = [processor(encoded(tone(f)))[50].argmax().item() for f in (200, 500, 1000, 2000, 4000)]
    assert bins == sorted(set(bins))
    other = [processor(encoded(tone(f, rate=44100), rate=44100))[50].argmax().item() for f in (200, 500, 1000, 2000)]
    assert other == bins[:4]


def test_what_is_missing_at_the_end_is_silence_and_values_are_moderate():
    processor = log_mel(seconds=1.0)
    mel = processor(encoded(tone(seconds=0.5)))
    silence = (np.log(processor.config.floor) - processor.config.mean) / processor.config.std
    assert mel[60:].numpy() == pytest.approx(silence, abs=1e-4)
    assert mel[:45].max() > 1
    assert mel.abs().max() < 5


def test_standardising_is_by_the_given_constants():
    media = encoded(tone())
    plain = log_mel(seconds=1.0, mean=0.0, std=1.0)(media)
    assert torch.allclose(log_mel(seconds=1.0, mean=-4.0, std=2.0)(media), (plain + 4) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "word"),
    [({"n_fft": 256}, "n_fft"), ({"f_max": 9000.0}, "f_max"), ({"std": 0.0}, "std"), ({"seconds": 0.0}, "seconds")],
)
def test_settings_that_cannot_work_are_refused(values, word):
    with pytest.raises(ConfigError, match=word):
        log_mel(**values)


@needs_shared
def test_every_real_file_opens_as_expected():
    for name, truth in json.loads((SHARED / "expected_soundfile.json").read_text()).items():
        wave, rate = open_audio(Media(path=str(SHARED / name)))
        assert (rate, len(wave)) == (truth["sr"], truth["frames"]), name
        assert float(np.sqrt((wave.astype(np.float64) ** 2).mean())) == pytest.approx(truth["rms"], abs=1e-4), name

"""Open any ordinary sound as a mono wave, or say why not; and make of it the log-mel picture an audio encoder eats."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

import numpy as np
import soundfile
import torch

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.containers import share_held, slack
from minigpt4o.processors.image import read_media

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "MPEG", "AIFF")  # as libsndfile calls them
MIN_RATE, MAX_RATE = 2_000, 384_000  # samples per second; outside, the header is not believed
MAX_CHANNELS = 16
MIN_SECONDS = 0.01  # what is shorter holds no window of sound
_BLOCK = 1 << 16  # frames decoded at a time, so that memory stays bounded


def open_audio(media: Media, max_seconds: float = 30.0) -> tuple[np.ndarray, int]:
    """The first `max_seconds` as ((samples,) float32 mono, samples per second); no more than that is decoded.

    Raises SkipSample: missing_file, read_error, unreadable_audio (damaged, not finite, absurd header),
    forbidden_type (a format outside FORMATS), short_audio (no sound, or less than the header promises).
    """
    data = read_media(media, "unreadable_audio")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, media)
            promised = math.ceil(file.frames / share_held(data, file.format))
            promised = min(promised, round(max_seconds * file.samplerate))
            wave = _read_mono(file, promised)
            rate, container = file.samplerate, file.format
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise SkipSample("unreadable_audio", f"{media}: {error}") from error
    if len(wave) < max(MIN_SECONDS * rate, promised - slack(data, container)):
        detail = f"{media}: {len(wave)} frames where the header promises {promised}; the file is cut off or empty"
        raise SkipSample("short_audio", detail)
    if not np.isfinite(wave).all():
        raise SkipSample("unreadable_audio", f"{media}: a sample is not a finite number")
    return wave, rate


def _check_header(file: soundfile.SoundFile, media: Media) -> None:
    if file.format not in FORMATS:
        raise SkipSample("forbidden_type", f"{media}: {file.format} is not read; formats: {', '.join(FORMATS)}")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        detail = f"{media}: {file.samplerate} samples per second; {MIN_RATE}..{MAX_RATE} are believed"
        raise SkipSample("unreadable_audio", detail)
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise SkipSample("unreadable_audio", f"{media}: {file.channels} channels; at most {MAX_CHANNELS} are read")


def _read_mono(file: soundfile.SoundFile, frames: int) -> np.ndarray:
    blocks = []
    while frames > 0:
        block = file.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block.mean(axis=1))
        frames -= len(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


@registry.register("processor", "log_mel")
class LogMel:
    """The sound at one rate, padded or cut to one length, as a standardised log-mel picture."""

    @dataclass
    class Config:
        sample_rate: int = 16000  # samples per second that the sound is brought to
        n_mels: int = 64  # mel bins
        n_fft: int = 400  # points of the Fourier transform; at least a window
        window_ms: float = 25.0  # length of a window in milliseconds
        hop_ms: float = 10.0  # from one window to the next in milliseconds
        seconds: float = 10.0  # every sound is padded with silence or cut to this length
        f_min: float = 40.0  # lowest frequency in Hz
        f_max: float | None = None  # highest frequency in Hz; null = half the sample rate
        floor: float = 1e-6  # added to the power before the logarithm
        mean: float = -7.0  # subtracted from the natural logarithm
        std: float = 5.0  # divided by afterwards

    def __init__(self, config: Config) -> None:
        self.config = config
        self.window = round(config.window_ms * config.sample_rate / 1000)
        self.hop = round(config.hop_ms * config.sample_rate / 1000)
        self.frames = round(config.seconds * 1000 / config.hop_ms)
        self._check()
        self._filters: torch.Tensor | None = None  # (n_fft // 2 + 1, n_mels)

    def _check(self) -> None:
        config = self.config
        if self.hop < 1 or self.window < 1 or self.frames < 1:
            raise ConfigError("log_mel: window_ms, hop_ms and seconds must each cover at least one sample")
        if config.n_fft < self.window:
            raise ConfigError(f"n_fft: {config.n_fft} points do not hold a window of {self.window}; raise it")
        top = config.f_max if config.f_max is not None else config.sample_rate / 2
        if not 0 <= config.f_min < top <= config.sample_rate / 2:
            raise ConfigError(f"f_min, f_max: need 0 <= {config.f_min} < {top} <= {config.sample_rate / 2} Hz")
        if config.std <= 0 or config.floor <= 0:
            raise ConfigError("std, floor: must be above 0")

    def __call__(self, media: Media, rng: random.Random | None = None) -> torch.Tensor:
        """(F, K) float32: F = seconds / hop windows, K = n_mels. Raises SkipSample; `rng` is not used."""
        wave, rate = open_audio(media, self.config.seconds)
        return self.tensor(wave, rate)

    def tensor(self, wave: np.ndarray, rate: int) -> torch.Tensor:
        """(F, K) float32 of a mono wave (samples,) that is already open."""
        config = self.config
        sound = _resample(torch.from_numpy(wave), rate, config.sample_rate)
        length = self.frames * self.hop
        sound = torch.nn.functional.pad(sound[:length], (0, max(0, length - len(sound))))
        spectrum = torch.stft(
            sound,
            config.n_fft,
            self.hop,
            self.window,
            window=torch.hann_window(self.window),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )  # (n_fft // 2 + 1, F + 1)
        power = spectrum[:, : self.frames].abs().square().T
        return ((power @ self._mel_filters() + config.floor).log() - config.mean) / config.std

    def _mel_filters(self) -> torch.Tensor:
        if self._filters is None:
            from torchaudio.functional import melscale_fbanks

            config = self.config
            top = config.f_max if config.f_max is not None else config.sample_rate / 2
            self._filters = melscale_fbanks(config.n_fft // 2 + 1, config.f_min, top, config.n_mels, config.sample_rate)
        return self._filters


def _resample(sound: torch.Tensor, rate: int, wanted: int) -> torch.Tensor:
    if rate == wanted:
        return sound
    from torchaudio.functional import resample

    return resample(sound, rate, wanted)

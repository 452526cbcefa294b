"""Open any ordinary sound as a mono wave, or say why not; and make of it the log-mel picture an audio encoder eats."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import soundfile
import torch

from minigpt4o.common.errors import ConfigError, SkipSample
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors import fast_mel
from minigpt4o.processors.containers import share_held, slack
from minigpt4o.processors.reading import read_media
from minigpt4o.processors.resampling import resample

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "MPEG", "AIFF")  # as libsndfile calls them
MIN_RATE, MAX_RATE = 2_000, 384_000  # samples per second; outside, the header is not believed
MAX_CHANNELS = 16
MIN_SECONDS = 0.01  # what is shorter holds no window of sound
LOUDEST = 1e6  # of a sample, where full scale is 1: what damage makes of floating point numbers lies far beyond
MAX_BYTES = 1 << 30  # of one sound's file; a larger file is not read
Long = Literal["cut", "centre", "random"]
_FULL_SCALE = np.float32(1 / 32768)  # of 16 bits
_BLOCK = 1 << 22  # numbers decoded at a time, so that memory stays bounded; each time costs a seek, dear in FLAC


class Clip(NamedTuple):
    """A mono wave and where it comes from in its recording."""

    wave: np.ndarray  # (samples,) float32
    rate: int  # samples per second
    start: float  # of the wave in its recording, in seconds
    seconds: float  # length of the whole recording, as its header promises it
    lost: float  # seconds of it that were left out on purpose


def open_audio(media: Media, max_seconds: float = 30.0) -> tuple[np.ndarray, int]:
    """The first `max_seconds` as ((samples,) float32 mono, samples per second); no more than that is decoded.

    Raises SkipSample as `open_clip` does.
    """
    clip = open_clip(media, max_seconds)
    return clip.wave, clip.rate


def open_clip(
    media: Media,
    max_seconds: float,
    long: Long = "cut",
    rng: random.Random | None = None,
    *,
    longest: float = math.inf,
    max_bytes: int = MAX_BYTES,
) -> Clip:
    """At most `max_seconds` of a recording: its beginning, its middle or any part of it; no more than that is decoded.

    `longest`: seconds that the whole recording may have. Without `rng` a random part is the middle.
    Raises SkipSample: missing_file, read_error, unreadable_audio (damaged, no numbers, absurd header),
    audio_too_long (more seconds or bytes than allowed), forbidden_type (a format outside FORMATS),
    short_audio (no sound, or less than the header promises).
    """
    data = read_media(media, "unreadable_audio", max_bytes, "audio_too_long")
    try:
        with soundfile.SoundFile(_Held(data)) as file:
            _check_header(file, media)
            rate, container = file.samplerate, file.format
            whole = math.ceil(file.frames / share_held(data, container))
            if whole > longest * rate:
                detail = f"{media}: {whole / rate:,.0f} s of sound, at most {longest:,.0f} s are read"
                raise SkipSample("audio_too_long", detail)
            promised = min(whole, round(max_seconds * rate))
            start = _start(whole - promised, long, rng)
            if start:
                file.seek(start)
            wave = _read_mono(file, promised)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise SkipSample("unreadable_audio", f"{media}: {error}") from error
    if len(wave) < max(MIN_SECONDS * rate, promised - slack(data, container)):
        detail = f"{media}: {len(wave)} frames where the header promises {promised}; the file is cut off or empty"
        raise SkipSample("short_audio", detail)
    if not -LOUDEST < wave.min() <= wave.max() < LOUDEST:
        raise SkipSample("unreadable_audio", f"{media}: a sample is not a number within {LOUDEST:g}; full scale is 1")
    return Clip(wave, rate, start / rate, whole / rate, (whole - promised) / rate)


class _Held(io.BytesIO):
    """Bytes for libsndfile, which goes before the first byte of damaged files: an error there would go to stderr."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return super().seek(max(offset, 0) if whence == io.SEEK_SET else offset, whence)


def _start(spare: int, long: Long, rng: random.Random | None) -> int:
    """The first frame of the part that is taken, where `spare` frames have to be left out."""
    if spare <= 0 or long == "cut":
        return 0
    return rng.randint(0, spare) if long == "random" and rng is not None else spare // 2


def _check_header(file: soundfile.SoundFile, media: Media) -> None:
    if file.format not in FORMATS:
        raise SkipSample("forbidden_type", f"{media}: {file.format} is not read; formats: {', '.join(FORMATS)}")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        detail = f"{media}: {file.samplerate} samples per second; {MIN_RATE}..{MAX_RATE} are believed"
        raise SkipSample("unreadable_audio", detail)
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise SkipSample("unreadable_audio", f"{media}: {file.channels} channels; at most {MAX_CHANNELS} are read")


def _read_mono(file: soundfile.SoundFile, frames: int) -> np.ndarray:
    blocks, most = [], _BLOCK // file.channels
    plain = file.subtype == "PCM_16" and file.format in ("WAV", "WAVEX", "AIFF")  # its numbers need no decoding
    while frames > 0:
        block = file.read(min(frames, most), dtype="int16" if plain else "float32", always_2d=True)
        if not len(block):
            break
        if plain:  # the same numbers as libsndfile makes of them, at five times the speed
            block = block.astype(np.float32)
            block *= _FULL_SCALE
        blocks.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
        frames -= len(block)
    if len(blocks) == 1:
        return np.ascontiguousarray(blocks[0])
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def note_cut(facts: dict[str, float], clip: Clip) -> None:
    """Add what was left out of one recording: `audio_cut_clips` counts them, `audio_cut_seconds` sums the seconds."""
    if clip.lost > 0:
        facts["audio_cut_clips"] = facts.get("audio_cut_clips", 0) + 1
        facts["audio_cut_seconds"] = facts.get("audio_cut_seconds", 0) + clip.lost


class Hearing(Protocol):
    """The fields that processors of sounds share."""

    seconds: float
    long: Long
    max_seconds: float
    max_bytes: int


def clip_for(config: Hearing, media: Media, rng: random.Random | None, facts: dict[str, float]) -> Clip:
    """The part of a recording that a processor takes; what is left out is noted in `facts`. Raises SkipSample."""
    clip = open_clip(media, config.seconds, config.long, rng, longest=config.max_seconds, max_bytes=config.max_bytes)
    note_cut(facts, clip)
    return clip


@registry.register("processor", "log_mel")
class LogMel:
    """The sound at one rate, padded or cut to one length, as a standardised log-mel picture.

    `engine` says how it is computed. `exact`: by torchaudio's resampler and torch.stft, number for number. `fast`: the
    same sums without the zeros that most filters consist of, in pieces that stay in the processor's cache, at two to
    four times the speed; a value differs by some 1e-6, and in bands that are silent beside a loud tone by 1e-3 at most.
    `auto`: `fast` for a sound that has to be resampled, `exact` for one that comes at `sample_rate`, whose features
    stay bit for bit what they have always been.
    """

    @dataclass
    class Config:
        sample_rate: int = 16000  # samples per second that the sound is brought to
        n_mels: int = 64  # mel bins
        n_fft: int = 400  # points of the Fourier transform; at least a window
        window_ms: float = 25.0  # length of a window in milliseconds
        hop_ms: float = 10.0  # from one window to the next in milliseconds
        seconds: float = 10.0  # every sound is padded with silence or cut to this length
        long: Literal["cut", "centre", "random"] = (
            "cut"  # which part of a longer recording is taken: the first, the middle, one drawn anew each time
        )
        max_seconds: float = 36_000.0  # longer recordings are skipped (audio_too_long)
        max_bytes: int = 1_073_741_824  # larger files are skipped unread (audio_too_long)
        f_min: float = 40.0  # lowest frequency in Hz
        f_max: float | None = None  # highest frequency in Hz; null = half the sample rate
        floor: float = 1e-6  # added to the power before the logarithm
        mean: float = -7.0  # subtracted from the natural logarithm
        std: float = 5.0  # divided by afterwards
        engine: Literal["auto", "exact", "fast"] = (
            "auto"  # how it is computed: fast is exact but for rounding; auto: fast where the rate is another
        )

    def __init__(self, config: Config) -> None:
        self.config = config
        self.window = round(config.window_ms * config.sample_rate / 1000)
        self.hop = round(config.hop_ms * config.sample_rate / 1000)
        self.frames = round(config.seconds * 1000 / config.hop_ms)
        self._check()
        self._hann = torch.hann_window(self.window)
        self.facts: dict[str, float] = {}  # what was left out since it was last emptied, see `note_cut`
        self._filters: torch.Tensor | None = None  # (n_fft // 2 + 1, n_mels)
        self._fast_filters: fast_mel.Filters | None = None

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
        """(F, K) float32: F = seconds / hop windows, K = n_mels. Raises SkipSample; `rng` draws for long: random."""
        clip = clip_for(self.config, media, rng, self.facts)
        return self.tensor(clip.wave, clip.rate)

    def tensor(self, wave: np.ndarray, rate: int) -> torch.Tensor:
        """(F, K) float32 of a mono wave (samples,) that is already open."""
        config = self.config
        fast = config.engine == "fast" or (config.engine == "auto" and rate != config.sample_rate)
        sound = resample(torch.from_numpy(wave), rate, config.sample_rate, fast)
        length = self.frames * self.hop
        sound = torch.nn.functional.pad(sound[:length], (0, max(0, length - len(sound))))
        mel = self._fast_mel(sound) if fast else self._mel(sound)
        return mel.add_(config.floor).log_().sub_(config.mean).div_(config.std)

    def _mel(self, sound: torch.Tensor) -> torch.Tensor:
        """(F, K) power by torch.stft."""
        spectrum = torch.stft(
            sound,
            self.config.n_fft,
            self.hop,
            self.window,
            window=self._hann,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )  # (n_fft // 2 + 1, F + 1)
        return spectrum[:, : self.frames].abs().square().T @ self._mel_filters()

    def _fast_mel(self, sound: torch.Tensor) -> torch.Tensor:
        """(F, K) power."""
        if self._fast_filters is None:
            self._fast_filters = fast_mel.Filters.of(self._mel_filters())
        return fast_mel.mel_power(sound, self._hann, self.config.n_fft, self.hop, self._fast_filters)

    def _mel_filters(self) -> torch.Tensor:
        if self._filters is None:
            from torchaudio.functional import melscale_fbanks

            config = self.config
            top = config.f_max if config.f_max is not None else config.sample_rate / 2
            self._filters = melscale_fbanks(config.n_fft // 2 + 1, config.f_min, top, config.n_mels, config.sample_rate)
        return self._filters

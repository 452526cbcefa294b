"""Sound waves to log-mel pictures for Minigpt4o's sound tower: the values of Gemma 3n's front end, faster."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import PaddingStrategy, TensorType

from minigpt4o.models.minigpt4o.waves import mono_waves

# B clips, L samples of one clip, F frames, M mel bins, K frequencies of the Fourier transform

log = logging.getLogger(__name__)

FRAMES_AT_ONCE = 256  # a Fourier transform of this many frames stays near the processor: 2 + 2 MiB
FILTERS_AT_ONCE = 16  # neighbouring filters share a narrow band: small products skip most zeros of the filter bank


def mel_filter_bank(frequencies: int, spacing: float, low: float, high: float, bins: int) -> np.ndarray:
    """(K, M) float64: triangles of height 1 whose corners lie evenly on the HTK mel scale between `low` and `high` Hz.

    `spacing` is the distance of two frequencies of the Fourier transform in Hz.
    """

    def mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    corners = 700.0 * (10.0 ** (np.linspace(mel(low), mel(high), bins + 2) / 2595.0) - 1.0)
    hertz = spacing * np.arange(frequencies)[:, None]
    widths = np.diff(corners)
    rising = (hertz - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - hertz) / widths[1:]
    return np.maximum(0.0, np.minimum(rising, falling))


class Band(NamedTuple):
    """Neighbouring mel filters and the frequencies that they hear: outside of these the filter bank is zero."""

    filters: slice
    frequencies: slice
    weights: np.ndarray  # (frequencies, filters) float32


class Minigpt4oAudioFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel features of mono clips: pre-emphasis, Hann frames, magnitudes, mel filters, natural logarithm.

    Args: `feature_size` mel bins between `min_frequency` and `max_frequency` Hz; frames of `frame_length_ms` every
    `hop_length_ms`; `preemphasis` 0 switches it off, `preemphasis_htk_flavor` lets it begin inside each frame;
    `fft_overdrive` doubles the points of the Fourier transform; `dither` is the deviation of noise added first
    (numpy's global generator), `input_scale_factor` a gain; mel values below `mel_floor` are raised to it;
    `per_bin_mean` and `per_bin_stddev` (M numbers each) standardise the result; `padding_value` fills short clips.
    """

    model_input_names: ClassVar[list[str]] = ["input_features", "input_features_mask"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        return_attention_mask: bool = True,
        frame_length_ms: float | None = None,  # 32, or what a saved `frame_length` in samples says
        hop_length_ms: float | None = None,  # 10, or what a saved `hop_length` in samples says
        min_frequency: float = 125.0,
        max_frequency: float = 7600.0,
        preemphasis: float = 0.97,
        preemphasis_htk_flavor: bool = True,
        fft_overdrive: bool = True,
        dither: float = 0.0,
        input_scale_factor: float = 1.0,
        mel_floor: float = 1e-5,
        per_bin_mean: Sequence[float] | None = None,
        per_bin_stddev: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        saved = {name: kwargs.pop(name, None) for name in ("frame_length", "hop_length", "fft_length")}
        super().__init__(
            feature_size, sampling_rate, padding_value, return_attention_mask=return_attention_mask, **kwargs
        )
        self.frame_length_ms = _milliseconds(frame_length_ms, saved["frame_length"], sampling_rate, 32.0)
        self.hop_length_ms = _milliseconds(hop_length_ms, saved["hop_length"], sampling_rate, 10.0)
        self.min_frequency, self.max_frequency = min_frequency, max_frequency
        self.preemphasis, self.preemphasis_htk_flavor = preemphasis, preemphasis_htk_flavor
        self.fft_overdrive = fft_overdrive
        self.dither, self.input_scale_factor, self.mel_floor = dither, input_scale_factor, float(mel_floor)
        self.per_bin_mean = _per_bin("per_bin_mean", per_bin_mean, feature_size)
        self.per_bin_stddev = _per_bin("per_bin_stddev", per_bin_stddev, feature_size)
        self._derive()

    def _derive(self) -> None:
        """Lengths in samples, the window and the filters; none of it is saved."""
        rate = self.sampling_rate
        self.frame_length = round(rate * self.frame_length_ms / 1000.0)
        self.hop_length = round(rate * self.hop_length_ms / 1000.0)
        if self.frame_length < 2 or self.hop_length < 1:
            raise ValueError(
                f"a frame of {self.frame_length_ms} ms every {self.hop_length_ms} ms is {self.frame_length} and "
                f"{self.hop_length} samples at {rate} Hz: need at least 2 and 1"
            )
        if not 0 <= self.min_frequency < self.max_frequency:
            raise ValueError(f"min_frequency {self.min_frequency} must lie below max_frequency {self.max_frequency}")
        if self.mel_floor <= 0:
            raise ValueError(f"mel_floor is {self.mel_floor}: its logarithm is taken, so it must be above 0")
        self.fft_length = 1 << ((self.frame_length - 1).bit_length() + bool(self.fft_overdrive))
        turns = np.arange(self.frame_length, dtype=np.float32) / self.frame_length
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * turns)).astype(np.float32)
        self.mel_filters = mel_filter_bank(
            self.fft_length // 2 + 1, rate / self.fft_length, self.min_frequency, self.max_frequency, self.feature_size
        )
        self._bands = _bands(self.mel_filters)
        self._top = max(band.frequencies.stop for band in self._bands)  # no filter hears a frequency above this one

    def to_dict(self) -> dict[str, Any]:
        """What `save_pretrained` writes: the arguments, not what follows from them."""
        derived = ("mel_filters", "window", "_bands", "_top", "frame_length", "hop_length", "fft_length")
        return {name: value for name, value in super().to_dict().items() if name not in derived}

    def __call__(
        self,
        raw_speech: Any,
        padding: bool | str | PaddingStrategy = "longest",
        max_length: int | None = 480_000,
        truncation: bool = True,
        pad_to_multiple_of: int | None = 128,
        return_tensors: str | TensorType | None = None,
        return_attention_mask: bool | None = True,
        sampling_rate: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_features` (B, F, M) float32 and `input_features_mask` (B, F) bool, True where the clip itself sounds.

        `raw_speech`: one mono clip or a list of them (numbers, arrays or tensors), or a (B, L) array. Floats are taken
        as they are (expected within -1 ... 1), integer arrays of sound files are scaled to that range.
        A clip longer than `max_length` samples is cut there with a warning, unless `truncation` is off; a clip shorter
        than one frame is padded to one. Without `return_tensors` the values are lists with one array for each clip.
        Raises ValueError: another `sampling_rate` than this extractor's, no sound, several channels, NaN or infinity.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the sound has {sampling_rate} samples per second, this feature extractor wants {self.sampling_rate}: "
                f"resample it first, for example torchaudio.functional.resample(wave, {sampling_rate}, "
                f"{self.sampling_rate})"
            )
        waves = mono_waves(raw_speech)
        strategy = self._get_padding_strategies(padding=padding, max_length=max_length)
        if truncation:
            waves = self._cut(waves, max_length, pad_to_multiple_of)
        lengths = self._padded_lengths(waves, strategy, max_length, pad_to_multiple_of)
        if len(set(lengths)) == 1:
            sound, heard = self._lay_out(waves, lengths[0])
            features: Any = self._log_mel(sound)
            mask: Any = self._frame_mask(heard)
        else:  # unpadded clips of several lengths: no common array
            parts = [self._lay_out([wave], length) for wave, length in zip(waves, lengths, strict=True)]
            features = [self._log_mel(sound)[0] for sound, _ in parts]
            mask = [self._frame_mask(heard)[0] for _, heard in parts]
        data = {"input_features": features}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            data["input_features_mask"] = mask
        if return_tensors is None:
            data = {name: list(value) for name, value in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def _cut(self, waves: list[np.ndarray], max_length: int | None, multiple: int | None) -> list[np.ndarray]:
        if max_length is None:
            raise ValueError("truncation=True needs max_length, the samples that a clip may hold")
        longest = _rounded_up(max_length, multiple)
        for number, wave in enumerate(waves):
            if len(wave) > longest:
                has, lost = (samples / self.sampling_rate for samples in (len(wave), len(wave) - longest))
                log.warning(
                    "clip %d of %d lasts %.2f s: its last %.2f s are cut off (max_length %d samples, %.2f s); "
                    "split it into several clips to keep them",
                    *(number + 1, len(waves), has, lost, max_length, has - lost),
                )
        return [wave[:longest] for wave in waves]

    def _padded_lengths(
        self, waves: list[np.ndarray], strategy: PaddingStrategy, max_length: int | None, multiple: int | None
    ) -> list[int]:
        """The samples of each clip after padding: at least one frame."""
        least = self.frame_length + 1  # pre-emphasis looks one sample back
        lengths = [len(wave) for wave in waves]
        if strategy == PaddingStrategy.DO_NOT_PAD:
            if min(lengths) < least:
                raise ValueError(
                    f"clip {lengths.index(min(lengths)) + 1} of {len(lengths)} holds {min(lengths)} samples, a frame "
                    f"needs {least}: switch padding on"
                )
            return lengths
        common = max(lengths) if strategy == PaddingStrategy.LONGEST or max_length is None else max_length
        common = _rounded_up(max(common, least), multiple)
        return [max(common, length) for length in lengths]

    def _lay_out(self, waves: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, L) float32 sound and (B, L) bool, True where a clip lies; the rest is `padding_value`."""
        sound = np.full((len(waves), length), self.padding_value, dtype=np.float32)
        heard = np.zeros((len(waves), length), dtype=bool)
        for row, wave in enumerate(waves):
            start = length - len(wave) if self.padding_side == "left" else 0
            sound[row, start : start + len(wave)] = wave
            heard[row, start : start + len(wave)] = True
        return sound, heard

    def _frames(self, length: int) -> int:
        return (length - self.frame_length - 1) // self.hop_length + 1

    def _frame_mask(self, heard: np.ndarray) -> np.ndarray:
        """(B, F): does the first sample of a frame belong to the clip?"""
        return heard[:, :: self.hop_length][:, : self._frames(heard.shape[1])]

    def _emphasised(self, sound: np.ndarray) -> np.ndarray:
        """(B, L') float32 whose frame f starts at f * hop.

        Pre-emphasis does not know the frames, so it is done once for the wave and not once for each frame that a sample
        lies in. The HTK flavour treats the first sample of a frame apart, but the window is 0 there.
        """
        if self.dither > 0:
            sound = sound + self.dither * np.random.randn(*sound.shape).astype(np.float32)
        if self.input_scale_factor != 1.0:
            sound = sound * np.float32(self.input_scale_factor)
        if self.preemphasis <= 0:
            return sound[:, :-1]
        emphasised = np.empty_like(sound)
        emphasised[:, 0] = 0.0  # in the HTK flavour this sample meets the window's 0, in the other no frame holds it
        np.multiply(sound[:, :-1], np.float32(-self.preemphasis), out=emphasised[:, 1:])
        emphasised[:, 1:] += sound[:, 1:]
        return emphasised[:, :-1] if self.preemphasis_htk_flavor else emphasised[:, 1:]

    def _log_mel(self, sound: np.ndarray) -> np.ndarray:
        """(B, F, M) float32 of (B, L) sound.

        The Fourier transform works in double precision: beside a loud tone the rounding of single precision is larger
        than the quiet bins, and their logarithm shows it.
        """
        batch, total = len(sound), self._frames(sound.shape[1])
        framed = np.lib.stride_tricks.sliding_window_view(self._emphasised(sound), self.frame_length, axis=1)
        framed = framed[:, :: self.hop_length]
        features = np.empty((batch, total, self.feature_size), dtype=np.float32)
        step = max(1, FRAMES_AT_ONCE // batch)
        buffer = np.zeros((batch, step, self.fft_length))
        for start in range(0, total, step):
            now = slice(start, min(start + step, total))
            points = buffer[:, : now.stop - now.start]
            np.multiply(framed[:, now], self.window, out=points[..., : self.frame_length])
            spectrum = torch.fft.rfft(torch.from_numpy(points)).numpy()
            magnitudes = np.abs(spectrum[..., : self._top].astype(np.complex64))
            for filters, frequencies, weights in self._bands:
                np.matmul(magnitudes[..., frequencies], weights, out=features[:, now, filters])
        np.log(np.maximum(features, np.float32(self.mel_floor), out=features), out=features)
        if self.per_bin_mean is not None:
            features -= np.asarray(self.per_bin_mean, dtype=np.float32)
        if self.per_bin_stddev is not None:
            features /= np.asarray(self.per_bin_stddev, dtype=np.float32)
        return features


def _bands(filter_bank: np.ndarray) -> list[Band]:
    """The (K, M) filter bank cut into bands."""
    found = []
    for first in range(0, filter_bank.shape[1], FILTERS_AT_ONCE):
        filters = slice(first, min(first + FILTERS_AT_ONCE, filter_bank.shape[1]))
        heard = np.flatnonzero(filter_bank[:, filters].any(axis=1))
        frequencies = slice(int(heard[0]), int(heard[-1]) + 1) if len(heard) else slice(0, 1)
        weights = np.ascontiguousarray(filter_bank[frequencies, filters], dtype=np.float32)
        found.append(Band(filters, frequencies, weights))
    return found


def _milliseconds(given: float | None, samples: int | None, rate: int, default: float) -> float:
    """A length in ms: as given, else from a saved number of samples (Gemma 3n saves only that), else the default."""
    if given is not None:
        return float(given)
    return default if samples is None else samples * 1000.0 / rate


def _per_bin(name: str, values: Sequence[float] | None, bins: int) -> list[float] | None:
    """M numbers as a flat list, so that they can be saved."""
    if values is None:
        return None
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(flat) != bins:
        raise ValueError(f"{name} holds {len(flat)} numbers but feature_size is {bins}: give one for each mel bin")
    return flat.tolist()


def _rounded_up(length: int, multiple: int | None) -> int:
    return length if not multiple else -(-length // multiple) * multiple

"""Sounds as Minigpt4o's tower hears them: log-mel frames of one length, NaN where there is no sound."""

# M sounds, F frames, K mel bins

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import clip_for
from minigpt4o.processors.resampling import resample


@registry.register("processor", "minigpt4o_audio")
class Minigpt4oAudio:
    """The sound as `Minigpt4oAudioFeatureExtractor` gives it, padded or cut to one length."""

    @dataclass
    class Config:
        sample_rate: int = 16000  # samples per second that the sound is brought to
        seconds: float = 30.0  # every sound is cut to this length or filled up with frames that count as absent
        long: Literal["cut", "centre", "random"] = (
            "cut"  # which part of a longer recording is taken: the first, the middle, one drawn anew each time
        )
        max_seconds: float = 36_000.0  # longer recordings are skipped (audio_too_long)
        max_bytes: int = 1_073_741_824  # larger files are skipped unread (audio_too_long)
        feature_size: int = 128  # mel bins: audio_config.input_feat_size of the model
        frame_ms: float = 32.0  # length of a frame in milliseconds
        hop_ms: float = 10.0  # from one frame to the next in milliseconds
        options: dict[str, Any] | None = None  # further values of the feature extractor (dither, per_bin_mean, ...)

    def __init__(self, config: Config) -> None:
        from minigpt4o.models.minigpt4o.feature_extraction_minigpt4o import Minigpt4oAudioFeatureExtractor

        self.config = config
        self.samples = round(config.seconds * config.sample_rate)
        self.facts: dict[str, float] = {}  # what was left out since it was last emptied, see `note_cut`
        try:
            self.extractor = Minigpt4oAudioFeatureExtractor(
                feature_size=config.feature_size,
                sampling_rate=config.sample_rate,
                frame_length_ms=config.frame_ms,
                hop_length_ms=config.hop_ms,
                **(config.options or {}),
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"minigpt4o_audio: {error}") from error
        if self.samples <= self.extractor.frame_length:
            raise ConfigError(
                f"minigpt4o_audio.seconds: {config.seconds} s are {self.samples} samples, a frame needs more than "
                f"{self.extractor.frame_length}"
            )

    @property
    def frames(self) -> int:
        """F, the frames of every sound."""
        return (self.samples - self.extractor.frame_length - 1) // self.extractor.hop_length + 1

    def __call__(self, media: Media, rng: random.Random | None = None) -> Tensor:
        """(F, K) float32, NaN where no sound is. Raises SkipSample; `rng` draws for long: random."""
        clip = clip_for(self.config, media, rng, self.facts)
        return self.tensor(clip.wave, clip.rate)

    def tensor(self, wave: np.ndarray, rate: int) -> Tensor:
        """(F, K) float32 of a mono wave (samples,) that is already open."""
        wave = resample(torch.from_numpy(wave), rate, self.config.sample_rate).numpy()
        found = self.extractor(
            [wave[: self.samples]],
            sampling_rate=self.config.sample_rate,
            padding="max_length",
            max_length=self.samples,
            pad_to_multiple_of=None,
            return_tensors="pt",
        )
        features, valid = found["input_features"][0].float(), found["input_features_mask"][0].bool()
        return features.masked_fill(~valid.unsqueeze(-1), torch.nan)


def absent_frames(sounds: Tensor) -> tuple[Tensor, Tensor]:
    """(M, F, K) with NaN -> the same with 0 there, and (M, F) bool, True at frames that hold no sound."""
    return sounds.nan_to_num(0.0), sounds.isnan().any(dim=-1)

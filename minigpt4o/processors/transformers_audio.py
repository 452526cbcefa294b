"""Sounds as an audio model of transformers wants them, by the feature extractor in the model's folder."""

# F frames and K mel bins, or T samples of a wave

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.common.weight_files import find_weights
from minigpt4o.conversation.sample import Media
from minigpt4o.processors.audio import clip_for
from minigpt4o.processors.resampling import resample


@registry.register("processor", "transformers_audio")
class TransformersAudioProcessor:
    """The sound at the model's rate, padded with silence or cut to one length, as its feature extractor gives it."""

    @dataclass
    class Config:
        path: str = (
            ""  # folder with preprocessor_config.json, or its name in MINIGPT4O_WEIGHTS: that of model.encoders.audio
        )
        seconds: float = 30.0  # every sound is padded with silence or cut to this length
        long: Literal["cut", "centre", "random"] = (
            "cut"  # which part of a longer recording is taken: the first, the middle, one drawn anew each time
        )
        max_seconds: float = 36_000.0  # longer recordings are skipped (audio_too_long)
        max_bytes: int = 1_073_741_824  # larger files are skipped unread (audio_too_long)
        extractor: dict[str, Any] = field(
            default_factory=dict
        )  # in place of `path`: what stands in its preprocessor_config.json (an exported folder)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.extractor = _stated(config.extractor) if config.extractor and not config.path else _extractor(config.path)
        self.rate = int(self.extractor.sampling_rate)
        self.samples = round(config.seconds * self.rate)
        if self.samples < 1:
            raise ConfigError("transformers_audio.seconds: must cover at least one sample")
        self.facts: dict[str, float] = {}  # what was left out since it was last emptied, see `note_cut`

    def __call__(self, media: Media, rng: random.Random | None = None) -> torch.Tensor:
        """(F, K), (K, F) as the model has it, or a wave (T, 1); float32. Raises SkipSample; `rng` for long: random."""
        clip = clip_for(self.config, media, rng, self.facts)
        return self.tensor(clip.wave, clip.rate)

    def tensor(self, wave: np.ndarray, rate: int) -> torch.Tensor:
        """The features of a mono wave (samples,) that is already open."""
        sound = resample(torch.from_numpy(wave), rate, self.rate)[: self.samples]
        sound = torch.nn.functional.pad(sound, (0, self.samples - len(sound)))
        found = self.extractor(sound.numpy(), sampling_rate=self.rate, return_tensors="pt")
        features: torch.Tensor = found[self.extractor.model_input_names[0]][0].to(torch.float32)
        if features.dim() == 3 and features.shape[0] == 1:  # a dimension of channels
            features = features[0]
        return features.unsqueeze(-1) if features.dim() == 1 else features

    def silence(self) -> torch.Tensor:
        """What an empty recording becomes; its shape is every sound's."""
        return self.tensor(np.zeros(self.samples, np.float32), self.rate)

    def without_folder(self) -> dict[str, Any]:
        """Values of the configuration that open sounds the same way where the folder is not."""
        return {"path": "", "extractor": json.loads(self.extractor.to_json_string())}


def _extractor(path: str) -> Any:
    if not path:
        raise ConfigError(
            "transformers_audio.path is missing: the folder of the audio model, as model.encoders.audio's"
        )
    from transformers import AutoFeatureExtractor

    try:
        folder = str(find_weights(path, "transformers_audio.path"))
        return AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"transformers_audio.path {path!r}: no feature extractor can be opened: {error}") from error


def _stated(values: dict[str, Any]) -> Any:
    import transformers

    kind = getattr(transformers, str(values.get("feature_extractor_type", "")), None)
    if kind is None:
        told = values.get("feature_extractor_type")
        raise ConfigError(f"transformers_audio.extractor: transformers has no feature extractor {told!r}")
    return kind.from_dict(dict(values))

"""Minigpt4o's picture and sound towers as encoders of their own, so that a tagger can train them first."""

# N pictures or sounds, S side in pixels, F frames, K mel bins, P features of one, C width

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry
from minigpt4o.models.encoders.pictures import check_side, empty_picture
from minigpt4o.models.native_sound import absent_frames


@registry.register("encoder", "minigpt4o_vision")
class Minigpt4oVisionTower(nn.Module):
    """Pictures (N, 3, S, S) -> features (N, P, C) of MobileNetV5, row by row."""

    @dataclass
    class Config:
        preset: str = "tiny"  # size whose picture tower this is: tiny, e2b, e4b
        options: dict[str, Any] = field(default_factory=dict)  # values over its vision_config (model_args, ...)
        image_size: int = 768  # side of a picture in pixels
        seed: int = 0  # of the random weights
        weights: str = ""  # safetensors file, or a job, run or checkpoint folder that trained it
        weights_prefix: str = "encoders.image.tower."  # where its tensors stand there ("vision_tower." in Minigpt4o's)

    def __init__(self, config: Config) -> None:
        from minigpt4o.models.minigpt4o.modeling_vision import Minigpt4oVisionEncoder

        super().__init__()
        self.tower: Any = _drawn(Minigpt4oVisionEncoder, "vision_config", config)
        self.image_size = config.image_size
        self.width = self.tower.config.hidden_size
        with torch.no_grad():
            self.tokens = int(self(self.example()).shape[1])
        self.from_scratch = not config.weights
        _load(self.tower, config, "image")

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, tokens, width)."""
        check_side(pictures, self.image_size)
        return self.tower(pixel_values=pictures, return_dict=True).last_hidden_state.flatten(2).transpose(1, 2)

    def example(self) -> Tensor:
        """An empty picture (1, 3, S, S), for steps in which every rank must run the encoder."""
        return empty_picture(self.image_size)


@registry.register("encoder", "minigpt4o_audio")
class Minigpt4oAudioTower(nn.Module):
    """Log-mel frames (N, F, K) of `minigpt4o_audio` -> features (N, P, C) of the conformer; 0 where no sound is."""

    @dataclass
    class Config:
        preset: str = "tiny"  # size whose sound tower this is: tiny, e2b, e4b
        options: dict[str, Any] = field(default_factory=dict)  # values over its audio_config
        frames: int = 0  # frames of every sound, as the audio processor gives them
        seed: int = 0  # of the random weights
        weights: str = ""  # safetensors file, or a job, run or checkpoint folder that trained it
        weights_prefix: str = "encoders.audio.tower."  # where its tensors stand there ("audio_tower." in Minigpt4o's)

    def __init__(self, config: Config) -> None:
        from minigpt4o.models.minigpt4o.modeling_audio import Minigpt4oAudioEncoder

        super().__init__()
        if config.frames < 1:
            raise ConfigError("encoder minigpt4o_audio: frames must say how many the audio processor gives")
        self.tower: Any = _drawn(Minigpt4oAudioEncoder, "audio_config", config)
        self.shape = (config.frames, self.tower.config.input_feat_size)
        self.width = self.tower.config.hidden_size
        with torch.no_grad():
            self.tokens = self(self.example()).shape[1]
        self.from_scratch = not config.weights
        _load(self.tower, config, "audio")

    def forward(self, sounds: Tensor) -> Tensor:
        """(N, F, K) -> (N, tokens, width)."""
        if tuple(sounds.shape[1:]) != self.shape:
            raise DataError(
                f"a sound of {sounds.shape[1]} frames x {sounds.shape[2]} mel bins came to an encoder of "
                f"{self.shape[0]} x {self.shape[1]}; set the audio processor and model.encoders.audio alike"
            )
        features, absent = absent_frames(sounds)
        return self.tower(features, absent, return_dict=True).last_hidden_state

    def example(self) -> Tensor:
        """A silent sound (1, F, K), for steps in which every rank must run the encoder."""
        return torch.zeros(1, *self.shape)


def _drawn(tower: Any, key: str, config: Any) -> Any:
    """A tower with random weights that depend on the seed alone."""
    from minigpt4o.models.native_open import drawn, native_config

    settings = native_config(config.preset, {key: config.options})
    return drawn(lambda: tower(getattr(settings, key)), config.seed)


def _load(tower: nn.Module, config: Any, kind: str) -> None:
    if config.weights:
        from minigpt4o.models.weights import load_part

        load_part(tower, config.weights, config.weights_prefix, f"model.encoders.{kind}.weights")

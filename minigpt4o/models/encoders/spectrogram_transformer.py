"""Sound encoder: a transformer over patches of a log-mel spectrogram."""

# M sounds, F frames, K mel bins, P patches

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry


@registry.register("encoder", "spectrogram_transformer")
class SpectrogramTransformer(nn.Module):
    """Log-mel (M, F, K) -> patch features (M, P, width), time running slowest."""

    @dataclass
    class Config:
        frames: int = 100  # frames of the spectrogram
        mels: int = 64  # mel bins of the spectrogram
        patch_frames: int = 4  # frames of a patch
        patch_mels: int = 0  # mel bins of a patch; 0 = all of them (patches over time only)
        width: int = 192  # size of a feature
        depth: int = 4  # layers
        heads: int = 4  # attention heads
        mlp_ratio: float = 4.0  # width of the feed-forward layers over width
        dropout: float = 0.0  # in training, if it is trained
        weights: str = ""  # safetensors file, or a job, run or checkpoint folder that trained it
        weights_prefix: str = "encoders.audio."  # where its tensors stand in a checkpoint of ours

    def __init__(self, config: Config) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        patch = (config.patch_frames, config.patch_mels or config.mels)
        if config.frames % patch[0] or config.mels % patch[1] or config.width % config.heads:
            raise ConfigError(
                f"encoder spectrogram_transformer: frames {config.frames} must be a multiple of patch_frames "
                f"{patch[0]}, mels {config.mels} of patch_mels {patch[1]}, width {config.width} of heads {config.heads}"
            )
        self.from_scratch = not config.weights
        self.shape = (config.frames, config.mels)
        self.width = config.width
        self.tokens = (config.frames // patch[0]) * (config.mels // patch[1])
        self.patches = nn.Conv2d(1, config.width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, self.tokens, config.width).normal_(std=0.02))
        self.blocks = nn.Sequential(
            *[
                Block(config.width, config.heads, config.mlp_ratio, qkv_bias=True, proj_drop=config.dropout)
                for _ in range(config.depth)
            ]
        )
        self.norm = nn.LayerNorm(config.width)
        if config.weights:
            from minigpt4o.models.weights import load_part

            load_part(self, config.weights, config.weights_prefix, "model.encoders.audio.weights")

    def forward(self, sounds: Tensor) -> Tensor:
        """(M, F, K) -> (M, tokens, width)."""
        if tuple(sounds.shape[1:]) != self.shape:
            raise DataError(
                f"a spectrogram of {sounds.shape[1]} frames x {sounds.shape[2]} mel bins came to an encoder of "
                f"{self.shape[0]} x {self.shape[1]}; set the audio processor and model.encoders.audio alike"
            )
        patches = self.patches(sounds.unsqueeze(1)).flatten(2).transpose(1, 2)  # (M, P, width)
        return self.norm(self.blocks(patches + self.positions))

    def example(self) -> Tensor:
        """An empty spectrogram (1, F, K), for steps in which every rank must run the encoder."""
        return torch.zeros(1, *self.shape)

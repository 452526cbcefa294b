"""A bridge that joins neighbouring features before one linear map (MiniGPT-4 with Llama 2, MiniGPT-v2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry


@registry.register("bridge", "grouped")
class Grouped(nn.Module):
    """`group` features side by side become one token: fewer tokens for the language model, nothing thrown away."""

    @dataclass
    class Config:
        group: int = 4  # features joined into one token
        square: bool = False  # join true 2x2 (3x3, ...) neighbourhoods; false: in raster order, as MiniGPT-v2
        drop_cls: bool = False  # leave out the first feature (the encoder's class token)
        bias: bool = True  # add a bias
        hidden: int = 0  # width of a hidden layer (GELU) in between; 0 = one linear map

    def __init__(self, config: Config, *, from_dim: int, from_tokens: int, to_dim: int) -> None:
        super().__init__()
        self.first = int(config.drop_cls)
        self.group = config.group
        count = from_tokens - self.first
        if config.group < 1 or count % config.group:
            raise ConfigError(f"bridge grouped: {count} features cannot be joined in groups of {config.group}")
        self.side, self.cell = math.isqrt(count), math.isqrt(config.group)
        self.square = config.square
        if config.square and (self.side**2 != count or self.cell**2 != config.group or self.side % self.cell):
            raise ConfigError(
                f"bridge grouped: square groups need a square grid and a square group that divides it; "
                f"{count} features and groups of {config.group} were given"
            )
        self.tokens = count // config.group
        joined = from_dim * config.group
        self.proj: nn.Module = nn.Linear(config.hidden or joined, to_dim, bias=config.bias)
        if config.hidden:
            self.proj = nn.Sequential(nn.Linear(joined, config.hidden), nn.GELU(), self.proj)

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, from_dim) -> (N, tokens, to_dim)."""
        features = features[:, self.first :]
        n, count, width = features.shape
        if self.square:
            cells = self.side // self.cell
            features = features.reshape(n, cells, self.cell, cells, self.cell, width).transpose(2, 3)
        return self.proj(features.reshape(n, count // self.group, self.group * width))

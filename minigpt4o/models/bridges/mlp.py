"""A bridge of several layers (the LLaVA-1.5 shape)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry


@registry.register("bridge", "mlp")
class Mlp(nn.Module):
    """Linear maps with GELU between them, per feature; as many tokens as features."""

    @dataclass
    class Config:
        depth: int = 2  # number of linear maps
        hidden: int = 0  # width between them; 0 = the language model's
        drop_cls: bool = False  # leave out the first feature (the encoder's class token)

    def __init__(self, config: Config, *, from_dim: int, from_tokens: int, to_dim: int) -> None:
        super().__init__()
        if config.depth < 1:
            raise ConfigError(f"bridge mlp: depth is {config.depth}, at least 1 is needed")
        self.first = int(config.drop_cls)
        self.tokens = from_tokens - self.first
        widths = [from_dim, *[config.hidden or to_dim] * (config.depth - 1), to_dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, from_dim) -> (N, tokens, to_dim)."""
        return self.layers(features[:, self.first :])

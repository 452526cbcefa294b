"""The plainest bridge: one linear map per feature."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from minigpt4o.common.registry import registry


@registry.register("bridge", "linear")
class Linear(nn.Module):
    """One linear map from the encoder's width to the language model's; as many tokens as features."""

    @dataclass
    class Config:
        bias: bool = True  # add a bias
        drop_cls: bool = False  # leave out the first feature (the encoder's class token)

    def __init__(self, config: Config, *, from_dim: int, from_tokens: int, to_dim: int) -> None:
        super().__init__()
        self.first = int(config.drop_cls)
        self.tokens = from_tokens - self.first
        self.proj = nn.Linear(from_dim, to_dim, bias=config.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, from_dim) -> (N, tokens, to_dim)."""
        return self.proj(features[:, self.first :])

"""A bridge of learned queries that read the features by cross attention (the Q-Former of BLIP-2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt4o.common.registry import registry


@registry.register("bridge", "qformer")
class QFormer(nn.Module):
    """A fixed number of learned queries through a BERT-like stack with cross attention, then one linear map."""

    @dataclass
    class Config:
        queries: int = 32  # tokens given to the language model
        width: int = 768  # width of the queries
        depth: int = 12  # layers
        heads: int = 12  # attention heads
        ffn: int = 3072  # width of the feed-forward layers
        cross_every: int = 2  # cross attention in every so many-th layer, the first included
        dropout: float = 0.1  # in training, if it is trained
        layer_norm_eps: float = 1e-12  # of all its norms
        weights: str = ""  # blip2_pretrained_flant5xxl.pth or another file of BLIP-2 or ours; empty: drawn at random

    def __init__(self, config: Config, *, from_dim: int, from_tokens: int, to_dim: int) -> None:
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        super().__init__()
        self.tokens = config.queries
        self.query_tokens = nn.Parameter(torch.empty(1, config.queries, config.width).normal_(std=0.02))
        settings = Blip2QFormerConfig(
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.ffn,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            cross_attention_frequency=config.cross_every,
            encoder_hidden_size=from_dim,
            layer_norm_eps=config.layer_norm_eps,
            use_qformer_text_input=False,
        )
        self.qformer = Blip2QFormerModel(settings)
        self.from_scratch = not config.weights
        if config.weights:
            self._load(config.weights)
        self.proj = nn.Linear(config.width, to_dim)

    def _load(self, weights: str) -> None:
        """Queries and Q-Former; the map to the language model is not part of BLIP-2's file."""
        from minigpt4o.models.weights import load_part

        load_part(self, weights, "bridges.image.", "model.bridges.image.weights")

    def forward(self, features: Tensor) -> Tensor:
        """(N, P, from_dim) -> (N, queries, to_dim)."""
        queries = self.query_tokens.expand(features.shape[0], -1, -1)
        out = self.qformer(query_embeds=queries, encoder_hidden_states=features)
        return self.proj(out.last_hidden_state)

"""Gemma3n's text model and ours with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from tiny_minigpt4o import TEXT, scatter_weights
from transformers.models.gemma3n import Gemma3nForCausalLM, Gemma3nTextConfig

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oTextConfig
from minigpt4o.models.minigpt4o.modeling_text import Minigpt4oForCausalLM

TOKENS = 20  # more than the sliding window of 8


def text_values(**changes: Any) -> dict[str, Any]:
    return {**TEXT, "eos_token_id": None, **changes}


def ours(**changes: Any) -> Minigpt4oForCausalLM:
    """Our text model with random weights."""
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**text_values(**changes))).eval()
    scatter_weights(model)
    return model


def twins(**changes: Any) -> tuple[Gemma3nForCausalLM, Minigpt4oForCausalLM]:
    """(the oracle, ours) with the same random weights; every tensor found by name."""
    oracle = Gemma3nForCausalLM(Gemma3nTextConfig(**text_values(**changes))).eval()
    scatter_weights(oracle)
    model = Minigpt4oForCausalLM(Minigpt4oTextConfig(**text_values(**changes))).eval()
    model.load_state_dict(oracle.state_dict(), strict=True)
    return oracle, model


def prompt(rows: int = 3, tokens: int = TOKENS, seed: int = 0) -> torch.Tensor:
    """(rows, tokens) ids, some of them beyond the per-layer table."""
    return torch.randint(8, TEXT["vocab_size"], (rows, tokens), generator=torch.Generator().manual_seed(seed))


def padding(side: str, rows: int = 3, tokens: int = TOKENS) -> torch.Tensor | None:
    """(rows, tokens) attention mask with rows of different lengths, or None."""
    if side == "none":
        return None
    mask = torch.ones(rows, tokens, dtype=torch.long)
    for row in range(rows):
        mask[row, : 5 * row] = 0
    return mask if side == "left" else mask.flip(1)

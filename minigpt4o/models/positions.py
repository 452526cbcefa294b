"""Learned positions of a square grid of patches, fitted to a grid of another size."""

# K class and register tokens, N = side * side patches, D width

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(positions: Tensor, side: int, extra: int) -> Tensor:
    """(1, K + N, D) -> (1, K + side * side, D): bicubic in float32, corners not aligned; the K extra ones are kept.

    This is the rule of BEiT's loader, which EVA and MiniGPT-v2 (16x16 -> 32x32) share; no smoothing when it shrinks.
    Raises ValueError if N is no square.
    """
    count = positions.shape[1] - extra
    old = math.isqrt(max(count, 0))
    if old * old != count or count < 1:
        raise ValueError(f"{count} positions (without {extra} extra ones) are not a square grid")
    if old == side:
        return positions
    grid = positions[:, extra:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    grid = grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :extra], grid], dim=1)

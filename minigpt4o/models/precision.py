"""The number format a model computes in."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def dtype_of(precision: str) -> torch.dtype:
    """`fp32`, `bf16`, or `auto`: bf16 on a GPU that has it, otherwise fp32."""
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """The context of a forward pass in `dtype`; nothing for float32."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)

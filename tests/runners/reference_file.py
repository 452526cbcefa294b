"""Write a `checkpoint_{epoch}.pth` as MiniGPT-4's runner does: a real AdamW that stepped, official names, buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

Q = "llama_model.base_model.model.model.layers.0.self_attn"
SHAPES = {
    f"{Q}.q_proj.lora_A.weight": (2, 16),
    f"{Q}.q_proj.lora_B.weight": (16, 2),
    f"{Q}.v_proj.lora_A.weight": (2, 16),
    f"{Q}.v_proj.lora_B.weight": (16, 2),
    "llama_proj.weight": (16, 16),
    "llama_proj.bias": (16,),
}
BUFFERS = {f"{Q}.rotary_emb.inv_freq": torch.arange(8.0), "Qformer.bert.embeddings.position_ids": torch.arange(9)}
CONFIG = {"model": {"arch": "minigpt_v2"}, "run": {"init_lr": 3e-5, "iters_per_epoch": 4}}


def reference_optimizer(parameters: dict[str, nn.Parameter], beta2: float = 0.98) -> torch.optim.AdamW:
    decay, plain = [], []
    for name, parameter in parameters.items():
        is_plain = parameter.ndim < 2 or "bias" in name or "ln" in name or "bn" in name
        (plain if is_plain else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0}]
    return torch.optim.AdamW(groups, lr=3e-5, weight_decay=0.05, betas=(0.9, beta2))


def reference_contents(epoch: int = 1, steps: int = 3, uneven: bool = False) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(epoch)
    parameters = {n: nn.Parameter(torch.randn(shape, generator=draw)) for n, shape in SHAPES.items()}
    optimizer = reference_optimizer(parameters)
    for step in range(steps):
        for name, parameter in parameters.items():
            skip = uneven and step == 0 and name.startswith("llama_proj")  # a batch without a picture
            parameter.grad = None if skip else torch.randn(parameter.shape, generator=draw)
        optimizer.step()
    model = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    first = next(iter(model))
    return {
        "model": {first: model.pop(first), **BUFFERS, **model},
        "optimizer": optimizer.state_dict(),
        "config": CONFIG,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
        "epoch": epoch,
    }


def write_reference(path: Path, **values: Any) -> dict[str, Any]:
    found = reference_contents(**values)
    torch.save(found, path)
    return found

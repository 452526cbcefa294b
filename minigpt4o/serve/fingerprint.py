"""Which model this is, told from a few numbers of each of its tensors: fast, and the same on every device."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

NUMBERS = 16  # read of each tensor, evenly spread over it


@torch.no_grad()
def quick_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes and sampled numbers. Two models that differ only between those look the same.

    Numbers are taken in bfloat16, so that the precision a model is held in does not matter.
    """
    digest, numbers = hashlib.sha256(), []
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tuple(tensor.shape)}|".encode())
        if tensor.numel() and not tensor.is_meta:
            flat = tensor.reshape(-1)
            at = torch.linspace(0, flat.numel() - 1, min(NUMBERS, flat.numel())).long()
            numbers.append(flat[at.to(flat.device)].to(torch.bfloat16))
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for few in numbers:
        by_device.setdefault(few.device, []).append(few)
    for device in sorted(by_device, key=str):
        digest.update(torch.cat(by_device[device]).cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Muon for hidden matrices, AdamW for everything else: small models learn in a fraction of the steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic Newton-Schulz iteration and its number of rounds (K. Jordan, Muon, 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
MOMENTUM = 0.95
RMS = 0.2  # root mean square of an update, as AdamW's is, so that one learning rate serves both (arXiv 2502.16982)
EPS = 1e-7


PIXEL_CHANNELS = 3  # a convolution that reads no more than these reads pixels or a spectrum: it is an embedding


def hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the weights Muon is for: linear maps and full convolutions inside the model, no embedding and no map to
    the vocabulary."""
    found = set()
    for owner, module in model.named_modules():
        is_head = owner.rpartition(".")[2] in ("lm_head", "embed_out") or owner.startswith("heads.")
        is_full = isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels > PIXEL_CHANNELS
        if (isinstance(module, nn.Linear) or is_full) and not is_head:
            found.add(f"{owner}.weight" if owner else "weight")
    return found


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but groups with `muon: True` take orthogonalised momentum steps.

    `torch.optim.Muon` computes in bfloat16, which is slow on CPUs without it; this one keeps the weights' own format
    on the CPU, and takes matrices of one shape together. The momentum is kept as `exp_avg`, so checkpoints know it.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """One update of every group."""
        groups = self.param_groups
        for group in groups:
            if group.get("muon"):
                self._muon_step(group)
        self.param_groups = [group for group in groups if not group.get("muon")]
        try:
            return super().step(closure) if self.param_groups else None
        finally:
            self.param_groups = groups

    def _muon_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                shape = parameter.flatten(1).shape  # of a convolution: what comes out x what goes in
                by_shape.setdefault(shape, []).append((parameter, parameter.grad))
        for shape, parameters in by_shape.items():
            directions = orthogonal(torch.stack([self._momentum(p, g).flatten(1) for p, g in parameters]))
            size = group["lr"] * RMS * max(shape) ** 0.5
            for (parameter, _), direction in zip(parameters, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.view_as(parameter), alpha=-size)

    def _momentum(self, parameter: Tensor, grad: Tensor) -> Tensor:
        state = self.state[parameter]
        if "exp_avg" not in state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].lerp_(grad, 1 - MOMENTUM)
        return grad.lerp(state["exp_avg"], MOMENTUM)  # Nesterov


def orthogonal(matrices: Tensor) -> Tensor:
    """(N, A, B) -> the nearest matrices with singular values near 1, by Newton-Schulz iteration."""
    a, b, c = QUINTIC
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + EPS)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def split_groups(groups: Iterable[dict[str, Any]], hidden: set[str]) -> list[dict[str, Any]]:
    """Each group in two: the hidden matrices for Muon, the rest for AdamW."""
    found = []
    for group in groups:
        for is_muon in (True, False):
            names = [name for name in group["names"] if (name in hidden) == is_muon]
            if names:
                chosen = dict(zip(group["names"], group["params"], strict=True))
                name = f"muon_{group['name']}" if is_muon else group["name"]
                params = [chosen[n] for n in names]
                found.append({**group, "name": name, "names": names, "params": params, "muon": is_muon})
    return found

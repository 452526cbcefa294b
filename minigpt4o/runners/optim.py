"""AdamW, or Muon with AdamW, over exactly the trained parameters, in groups that have names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.models import official
from minigpt4o.runners.pace import COMPAT

BETA1 = 0.9
EPS = 1e-8
PLAIN_WORDS = ("bias", "ln", "bn")  # under compat: a name that holds one of them, anywhere, does not decay


def plain_names(model: nn.Module) -> set[str]:
    """Names of parameters that weight decay must leave alone: vectors, biases, everything inside a norm."""
    found = set()
    for owner, module in model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or parameter.ndim < 2 or name.endswith("bias"):
                found.add(f"{owner}.{name}" if owner else name)
    return found


def reference_plain_names(trained: Mapping[str, nn.Parameter]) -> set[str]:
    """The reference's rule: no decay for vectors and for names that hold `bias`, `ln` or `bn` (its own names)."""
    names = official.to_official(trained)
    return {n for n, p in trained.items() if is_plain(names.get(n, n), p.ndim)}


def is_plain(official_name: str, ndim: int) -> bool:
    """Whether MiniGPT-4 gives a parameter of this name no weight decay."""
    return ndim < 2 or any(word in official_name for word in PLAIN_WORDS)


def scale_of(name: str, multipliers: Mapping[str, float]) -> float:
    """The learning rate multiplier of the longest prefix that fits."""
    fitting = [p for p in multipliers if name == p or name.startswith(p.rstrip(".") + ".")]
    return float(multipliers[max(fitting, key=len)]) if fitting else 1.0


def named_groups(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    weight_decay: float,
    multipliers: Mapping[str, float],
    profile: str = "default",
) -> list[dict[str, Any]]:
    """Parameter groups `decay` and `no_decay`, once per multiplier; `names` says what is inside, in the model's order.

    Who decays is told by the type of module or, if `profile` is compat, by the reference's rule.

    Raises ConfigError when nothing is trained or a multiplier fits nothing.
    """
    if not trained:
        raise ConfigError("nothing is trained; name what learns in model.train, for example [bridges]")
    for prefix in multipliers:
        if not any(scale_of(name, {prefix: 2.0}) == 2.0 for name in trained):
            first = next(iter(trained))
            raise ConfigError(f"run.lr_multipliers: {prefix!r} fits no trained parameter; the first is {first!r}")
    plain = reference_plain_names(trained) if profile == COMPAT else plain_names(model)
    groups: dict[tuple[bool, float], list[str]] = {}
    for name in trained:
        groups.setdefault((name in plain, scale_of(name, multipliers)), []).append(name)
    return [
        {
            "name": ("no_decay" if is_plain else "decay") + (f"_x{scale:g}" if scale != 1.0 else ""),
            "params": [trained[n] for n in names],
            "names": names,
            "weight_decay": 0.0 if is_plain else weight_decay,
            "lr_scale": scale,
        }
        for (is_plain, scale), names in sorted(groups.items())
    ]


def build_adamw(groups: list[dict[str, Any]], lr: float, beta2: float) -> torch.optim.AdamW:
    """AdamW; fused on CUDA, where every parameter lives on the GPU, plain on the CPU."""
    on_cuda = all(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=lr, betas=(BETA1, beta2), eps=EPS, fused=True if on_cuda else None)


def build_optimizer(
    kind: str, groups: list[dict[str, Any]], model: nn.Module, lr: float, beta2: float
) -> torch.optim.AdamW:
    """`adamw`, or `muon`: Muon for hidden matrices and AdamW for the rest."""
    if kind == "adamw":
        return build_adamw(groups, lr, beta2)
    from minigpt4o.runners.muon import MuonAdamW, hidden_matrices, split_groups

    return MuonAdamW(split_groups(groups, hidden_matrices(model)), lr=lr, betas=(BETA1, beta2), eps=EPS)


def set_lr(optimizer: Any, lr: float) -> None:
    """The step's learning rate, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)

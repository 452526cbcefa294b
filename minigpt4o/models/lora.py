"""Low-rank adapters (LoRA) on the language model: put in by name, merged for export."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.source import nearest


def add_lora(model: nn.Module, *, r: int, alpha: int, dropout: float, target_modules: Sequence[str]) -> None:
    """Put adapters of rank `r` (scale alpha / r, B = 0 at start) into every linear map named in `target_modules`.

    In place, so that names stay predictable: `<path>.q_proj.lora_A.default.weight` beside `<path>.q_proj.base_layer`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _is_map(module)})
    for target in target_modules:
        if target not in known:
            hint = nearest(target, known) or known
            raise ConfigError(f"model.lora_target_modules: no linear map is named {target!r}; known: {', '.join(hint)}")
    settings = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        bias="none",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )
    inject_adapter_in_model(settings, model)


def _is_map(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's transposed linear


def merged(model: Any) -> Any:
    """The model with adapters folded into its weights: itself if it has none, otherwise a copy."""
    from peft.tuners.lora import LoraLayer

    if not any(isinstance(module, LoraLayer) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model

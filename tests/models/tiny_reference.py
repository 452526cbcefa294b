"""Tiny models of the MiniGPT-4 family, filled by a rule, whose numbers were measured on the reference itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import IMAGE_SLOT, Batch
from minigpt4o.models.official import to_official

VALUES: dict[str, Any] = json.loads((Path(__file__).parent / "minigpt4_values.json").read_text(encoding="utf-8"))

LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
EVA = {"image_size": 56, "patch_size": 14, "width": 32, "depth": 2, "heads": 2, "mlp_ratio": 4.3637}
QFORMER = {"queries": 8, "width": 48, "depth": 4, "heads": 4, "ffn": 96}
GROUPED = {"group": 4, "drop_cls": True}
KINDS: dict[str, dict[str, Any]] = {
    "v2": {"bridge": Part("bridge", "grouped", GROUPED), "lora_r": 4, "train": ["bridges.image", "lora"]},
    "v1_llama2_noqformer": {"bridge": Part("bridge", "grouped", GROUPED), "train": ["bridges.image"]},
    "v1_qformer": {"bridge": Part("bridge", "qformer", QFORMER), "train": ["bridges.image.proj"]},
}


def tiny(kind: str, tokenizer: str, filled: bool = True, **values: Any) -> Any:
    """The tiny model of a variant (v2, v1_llama2_noqformer, v1_qformer) in eval mode."""
    chosen = dict(KINDS[kind])
    values = {
        "llm": Part("llm", "causal_lm", {"model_type": "llama", "tokenizer": tokenizer, "options": LLAMA}),
        "encoders": {"image": Part("encoder", "eva_vit", EVA)},
        "bridges": {"image": chosen.pop("bridge")},
        "feature_norm": True,
        "precision": "fp32",
        **chosen,
        **values,
    }
    model = registry.build(Part("model", "minigpt4", values))
    if filled:
        fill(model)
    return model.eval()


def fill(model: Any) -> None:
    """Every parameter by the recipe's rule, which goes by its official name."""
    official = to_official([name for name, _ in model.named_parameters()])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(rule(official[name], parameter))


def rule(name: str, like: Tensor) -> Tensor:
    j = sum(map(ord, name)) % 97
    values = 0.05 * torch.sin(0.7 * torch.arange(1, like.numel() + 1, dtype=torch.float64) + 1.3 * j)
    is_norm = ("norm" in name.lower() and name.endswith("weight")) or "ln_vision.weight" in name
    return (values + float(is_norm)).to(torch.float32).view(like.shape)


def picture(count: int = 2) -> Tensor:
    """(count, 3, 56, 56): element k is sin(k / 100)."""
    return torch.sin(0.01 * torch.arange(count * 3 * 56 * 56, dtype=torch.float64)).float().view(count, 3, 56, 56)


def unfold(row: list[int | str]) -> list[int]:
    """`"IMG*4"` of a golden row -> four slots."""
    found: list[int] = []
    for item in row:
        found += [IMAGE_SLOT] * int(item.split("*")[1]) if isinstance(item, str) else [item]
    return found


def golden_batch(values: dict[str, Any]) -> Batch:
    """The batch of a measured case."""
    ids = torch.tensor([unfold(row) for row in values["input_ids"]])
    mask, labels = torch.tensor(values["attention_mask"]), torch.tensor(values["labels"])
    return Batch(ids, mask, labels, picture() if bool((ids == IMAGE_SLOT).any()) else None, None)

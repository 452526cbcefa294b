"""MiniGPT-4 with its Q-Former as transformers' BLIP-2: EVA ViT, ln_vision, Q-Former, one map, any causal LM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt4o.models.export.language import Language

# Ours -> BLIP-2's, inside the vision tower.
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
}
_BLOCK = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.proj.": "self_attn.projection.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
}
NORM_EPS = 1e-5  # of our ln_vision, as BLIP-2 was trained; transformers gives all norms of the tower one number


def why_not(model: Any) -> str:
    """What keeps this model from being a BLIP-2 of transformers; "" if nothing does."""
    kinds = sorted(model.encoders)
    if kinds != ["image"]:
        return f"BLIP-2 has one encoder, for pictures; this model has {', '.join(kinds) or 'none'}"
    encoder, bridge = type(model.encoders["image"]).__name__, type(model.bridges["image"]).__name__
    if encoder != "EvaViT":
        return f"its picture encoder is {encoder}, BLIP-2's is EvaViT (eva_vit)"
    if bridge != "QFormer":
        return f"its bridge is {bridge}, BLIP-2's is QFormer (qformer)"
    if "image" not in model.norms:
        return "it has no norm behind the picture encoder (model.feature_norm)"
    return ""


def blip2_config(model: Any, language: Language, image_token_id: int) -> Any:
    """`Blip2Config` of the same sizes."""
    from transformers import Blip2Config

    encoder, bridge = model.encoders["image"], model.bridges["image"]
    blocks = encoder.vit.blocks
    vision = {
        "hidden_size": encoder.width,
        "intermediate_size": blocks[0].mlp.fc1.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": blocks[0].attn.num_heads,
        "image_size": encoder.image_size,
        "patch_size": encoder.image_size // encoder.side,
        "layer_norm_eps": blocks[0].norm1.eps,
        "hidden_act": "gelu",
        "qkv_bias": True,
    }
    qformer = {key: value for key, value in bridge.qformer.config.to_dict().items() if key != "model_type"}
    text = language.config.to_dict()
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=bridge.tokens,
        image_token_index=image_token_id,
    )


def blip2_tensors(model: Any, language: Language) -> dict[str, Tensor]:
    """Every tensor under BLIP-2's name."""
    found = {f"vision_model.{name}": t for name, t in _vision_tensors(model.encoders["image"].vit).items()}
    for leaf, tensor in model.norms["image"].state_dict().items():
        found[f"vision_model.post_layernorm.{leaf}"] = tensor
    for name, tensor in model.bridges["image"].state_dict().items():
        found[name.replace("proj.", "language_projection.", 1) if name.startswith("proj.") else name] = tensor
    return found | {f"language_model.{name}": t for name, t in language.tensors.items()}


def _vision_tensors(vit: Any) -> dict[str, Tensor]:
    """EVA has biases for queries and values; BLIP-2 keeps them in one vector with zeros for the keys."""
    state = vit.state_dict()
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            number, rest = name.removeprefix("blocks.").split(".", 1)
            place = f"encoder.layers.{number}."
            if rest == "attn.q_bias":
                values = state[f"blocks.{number}.attn.v_bias"]
                found[f"{place}self_attn.qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), values])
            elif rest == "attn.qkv.weight":
                found[f"{place}self_attn.qkv.weight"] = tensor
            else:
                new = next((b + rest.removeprefix(a) for a, b in _BLOCK.items() if rest.startswith(a)), "")
                if new:
                    found[place + new] = tensor
            continue
        new = next((b + name.removeprefix(a) for a, b in _VISION.items() if name.startswith(a)), "")
        if new:
            found[new] = tensor
    return found

"""A Minigpt4o small enough for a test, as a configuration, and the same as a Gemma3n configuration."""

from __future__ import annotations

import copy
from typing import Any

import torch

# Ids: 0 ... 7 special tokens, text up to 63, picture rows 64 ... 71, sound rows 72 ... 79.
ROWS, VOCAB = 8, 80
VISION, AUDIO = VOCAB - 2 * ROWS, VOCAB - ROWS
IMAGE_TOKEN, AUDIO_TOKEN = VISION + 1, AUDIO + 1
IMAGE_SIZE, IMAGE_TOKENS, AUDIO_TOKENS, MELS = 32, 4, 6, 16

TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "vocab_size_per_layer_input": VISION,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 12,
    "altup_num_inputs": 3,
    "laurel_rank": 8,
    "activation_sparsity_pattern": [0.9, 0.9, 0.0, 0.0, 0.0, 0.0],
}


def vision_config() -> dict[str, Any]:
    from timm.models._efficientnet_builder import decode_arch_def

    # every stage starts with a stride; a stage cannot end in attention
    stages = [
        ["er_r1_k3_s2_e2_c8"],
        ["uir_r1_a3_k5_s2_e2_c16"],
        ["uir_r1_a3_k3_s2_e2_c16", "mqa_r1_k3_h2_s1_d8_c16", "uir_r1_a0_k0_s1_e2_c16"],
    ]
    return {
        "architecture": "mobilenetv5_300m_enc",
        "model_args": {"block_args": decode_arch_def(stages), "stem_size": 8, "msfa_output_resolution": 2},
        "hidden_size": 2048,
        "vocab_size": ROWS,
        "vocab_offset": VISION,
    }


AUDIO_CONFIG: dict[str, Any] = {
    "vocab_size": ROWS,
    "vocab_offset": AUDIO,
    "input_feat_size": MELS,
    "hidden_size": 32,
    "conf_attention_chunk_size": 4,
    "conf_attention_context_left": 5,
    "conf_num_attention_heads": 4,
    "conf_num_hidden_layers": 2,
    "conf_reduction_factor": 2,
    "sscp_conv_channel_size": (8, 4),
}
TOKENS: dict[str, Any] = {
    "audio_soft_tokens_per_image": AUDIO_TOKENS,
    "vision_soft_tokens_per_image": IMAGE_TOKENS,
    "boi_token_id": 6,
    "boa_token_id": 7,
    "eoi_token_id": VISION,
    "image_token_id": IMAGE_TOKEN,
    "eoa_token_id": AUDIO,
    "audio_token_id": AUDIO_TOKEN,
}


def tiny_values(**text: Any) -> dict[str, Any]:
    """The values of both configurations; `text` changes the text model."""
    values = {
        "text_config": {**TEXT, **text},
        "vision_config": vision_config(),
        "audio_config": AUDIO_CONFIG,
        **TOKENS,
    }
    return copy.deepcopy(values)


def tiny_config(**text: Any) -> Any:
    from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oConfig

    return Minigpt4oConfig(**tiny_values(**text))


def oracle_config(**text: Any) -> Any:
    from transformers import Gemma3nConfig

    return Gemma3nConfig(**tiny_values(**text))


def scatter_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight a random value: a fresh model has zeros and ones that would hide faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim < 2:
                one = "norm" in name or name.endswith("bn.weight") or name.endswith("gamma")
                weight.copy_(noise * 0.1 + (1.0 if one else 0.0))
            else:
                fan_in = weight[0].numel()
                weight.copy_(noise / fan_in**0.5)

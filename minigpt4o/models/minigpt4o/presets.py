"""Known sizes of Minigpt4o: what differs from the configurations' defaults."""

from __future__ import annotations

from typing import Any

LOCAL, GLOBAL = "sliding_attention", "full_attention"

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "text_config": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "sliding_window": 64,
            "layer_types": [LOCAL, GLOBAL, LOCAL, GLOBAL],
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "altup_num_inputs": 2,
            "laurel_rank": 16,
            "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        },
        "vision_config": {
            # blocks in timm's notation; decoded when the tower is built
            "model_args": {
                "block_args": [
                    ["er_r1_k3_s2_e4_c16"],
                    ["uir_r1_a3_k5_s2_e4_c32"],
                    ["uir_r1_a5_k5_s2_e4_c48", "mqa_r1_k3_h4_v2_s1_d16_c48", "uir_r1_a0_k0_s1_e2_c48"],
                    ["uir_r1_a5_k5_s2_e4_c64", "mqa_r1_k3_h4_s1_d16_c64", "uir_r1_a0_k0_s1_e2_c64"],
                ],
                "stem_size": 16,
                "layer_scale_init_value": 1.0,  # timm's 1e-5 keeps blocks of random weights from learning
            },
        },
        "audio_config": {
            "hidden_size": 64,
            "conf_num_attention_heads": 4,
            "conf_num_hidden_layers": 2,
            "sscp_conv_channel_size": (16, 8),
        },
    },
    "e2b": {
        "text_config": {"num_hidden_layers": 30, "intermediate_size": 8192, "num_kv_shared_layers": 10},
        "vision_config": {},
        "audio_config": {},
    },
    "e4b": {"text_config": {}, "vision_config": {}, "audio_config": {}},
}

"""What an exported aligned model is made of: encoders and bridges by name and values, and a causal language model."""

# No `from __future__ import annotations`: transformers checks the fields by their annotations.
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class AlignedConfig(PreTrainedConfig):
    """`encoders` and `bridges` are {kind: {"name": registered name, ...its values}}; kinds are image and audio."""

    model_type = "minigpt4o_aligned"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")
    }

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    encoders: dict[str, Any] | None = None
    bridges: dict[str, Any] | None = None
    feature_norm: bool = False  # LayerNorm between encoder and bridge
    image_token_id: int | None = None  # stands where one feature of a picture belongs
    audio_token_id: int | None = None
    plugins: list[str] | None = None  # modules that register parts which are not of this package


__all__ = ["AlignedConfig"]

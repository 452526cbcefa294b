"""The aligned model as a `PreTrainedModel`: encoders -> bridges -> features in the places of the text -> causal LM."""

# B rows, T tokens, N pictures or sounds of a batch, P features of one, D width of the language model

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from minigpt4o.common.registry import Part, registry
from minigpt4o.models.aligned_hf.configuration_aligned import AlignedConfig

INPUTS = {"image": "pixel_values", "audio": "input_features"}
# What networks raise on the meta device, where shapes are known and numbers are not.
_NO_NUMBERS = (RuntimeError, NotImplementedError, ValueError, TypeError)


class AlignedForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Pictures and sounds in a text, text out. `generate` gives the prompt and what follows it."""

    config: AlignedConfig
    config_class = AlignedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "audio", "text")
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: AlignedConfig) -> None:
        super().__init__(config)
        for plugin in config.plugins or []:
            registry.add_plugin(plugin)
        self.language_model: Any = AutoModelForCausalLM.from_config(config.text_config)
        width = self.language_model.get_input_embeddings().embedding_dim
        self.encoders, self.norms, self.bridges = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for kind, node in (config.encoders or {}).items():
            encoder = _built("encoder", node)
            bridge = (config.bridges or {})[kind]
            self.encoders[kind] = encoder
            if config.feature_norm:
                self.norms[kind] = nn.LayerNorm(encoder.width)
            self.bridges[kind] = _built(
                "bridge", bridge, from_dim=encoder.width, from_tokens=encoder.tokens, to_dim=width
            )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def _init_weights(self, module: nn.Module) -> None:
        """Every weight comes from the file; what draws its own numbers has done so when it was built."""

    def media_features(self, kind: str, media: Tensor) -> Tensor:
        """(N, 3, S, S) pictures or (N, frames, bins) sounds -> (N, P, D), as they stand in a row."""
        encoder = self.encoders[kind]
        weight = next(encoder.parameters())
        features = encoder(media.to(weight.device, weight.dtype))
        if kind in self.norms:
            norm: Any = self.norms[kind]
            features = norm(features.to(norm.weight.dtype))
        bridge = self.bridges[kind]
        return bridge(features.to(next(bridge.parameters()).dtype))

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> Tensor:
        """(N, P, D)."""
        return self.media_features("image", pixel_values)

    def get_audio_features(self, input_features: Tensor, **kwargs: Any) -> Tensor:
        """(N, P, D)."""
        return self.media_features("audio", input_features)

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None, input_features: Tensor | None) -> Tensor:
        """(B, T, D). Raises ValueError where places and media disagree in number."""
        embeddings = self.get_input_embeddings()(input_ids)
        for kind, media in (("image", pixel_values), ("audio", input_features)):
            token = getattr(self.config, f"{kind}_token_id")
            places = input_ids == token if token is not None else torch.zeros_like(input_ids, dtype=torch.bool)
            features = None if media is None else self.media_features(kind, media)
            given = 0 if features is None else features.shape[0] * features.shape[1]
            if int(places.sum()) != given:
                raise ValueError(
                    f"the text has {int(places.sum())} places for {kind} features, but {INPUTS[kind]} gives {given}; "
                    "write text and media with this folder's processor"
                )
            if features is not None:
                embeddings = embeddings.masked_scatter(places.unsqueeze(-1), features.to(embeddings.dtype))
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the language model gives: logits (B, T, V), and the loss if `labels` are given."""
        if inputs_embeds is None:
            assert input_ids is not None, "give input_ids or inputs_embeds"
            inputs_embeds = self.embed(input_ids, pixel_values, input_features)
        return self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
        generation_config: Any = None,
        **kwargs: Any,
    ) -> Any:
        """(B, T + new) ids, as the language model's own `generate`; prompts are padded on the left."""
        settings = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        rest = settings.update(**kwargs)
        return self.language_model.generate(
            input_ids=input_ids,
            inputs_embeds=self.embed(input_ids, pixel_values, input_features),
            attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            generation_config=settings,
            **rest,
        )


def _built(kind: str, node: dict[str, Any], **known: Any) -> Any:
    """A part without its weights; on the CPU if it computes with numbers while it is built."""
    part = Part(kind, node["name"], {key: value for key, value in node.items() if key != "name"})
    try:
        module = registry.build(part, **known)
    except _NO_NUMBERS:
        with torch.device("cpu"):
            module = registry.build(part, **known)
    keep_buffers(module)
    return module


def keep_buffers(module: nn.Module) -> None:
    """Have buffers that no file holds saved and loaded like all others: transformers would leave them empty."""
    for inner in module.modules():
        inner._non_persistent_buffers_set.clear()


__all__ = ["AlignedForConditionalGeneration"]

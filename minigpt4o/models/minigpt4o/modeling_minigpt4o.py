"""Minigpt4o itself: pictures and sounds become soft tokens in the text, and the language model reads on."""

# B rows, T tokens, D text width; N pictures or sounds of all rows one after the other, S soft tokens of one,
# C width of a tower, V vocabulary, L layers, P width of a per-layer input

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple

from minigpt4o.models.minigpt4o.configuration_minigpt4o import (
    Minigpt4oAudioConfig,
    Minigpt4oConfig,
    Minigpt4oTextConfig,
    Minigpt4oVisionConfig,
)
from minigpt4o.models.minigpt4o.layers import Minigpt4oRMSNorm
from minigpt4o.models.minigpt4o.modeling_audio import Minigpt4oAudioEncoder
from minigpt4o.models.minigpt4o.modeling_base import Minigpt4oPreTrainedModel
from minigpt4o.models.minigpt4o.modeling_text import Minigpt4oTextModel
from minigpt4o.models.minigpt4o.modeling_vision import Minigpt4oVisionEncoder


@dataclass
class Minigpt4oModelOutputWithPast(BaseModelOutputWithPast):
    """`image_hidden_states` (N, S, D) and `audio_hidden_states` (N, S, D) are the soft tokens put into the text."""

    image_hidden_states: torch.Tensor | None = None
    audio_hidden_states: torch.Tensor | None = None


@dataclass
class Minigpt4oCausalLMOutputWithPast(ModelOutput):
    """`logits` (B, T or those kept, V), soft-capped; the rest as in the model without head."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None
    audio_hidden_states: torch.Tensor | None = None


class Minigpt4oMultimodalEmbedder(nn.Module):
    """Brings one medium to the text's width: soft tokens from a tower, or hard tokens from a table of its own.

    The table holds the vocabulary's rows [vocab_offset, vocab_offset + vocab_size).
    """

    def __init__(
        self, multimodal_config: Minigpt4oAudioConfig | Minigpt4oVisionConfig, text_config: Minigpt4oTextConfig
    ) -> None:
        super().__init__()
        width, eps = multimodal_config.hidden_size, multimodal_config.rms_norm_eps
        self.vocab_offset = multimodal_config.vocab_offset
        self.vocab_size = multimodal_config.vocab_size
        self.embedding = nn.Embedding(self.vocab_size, width)
        self.hard_embedding_norm = Minigpt4oRMSNorm(width, eps=eps)
        self.soft_embedding_norm = Minigpt4oRMSNorm(width, eps=eps)
        self.embedding_projection = nn.Linear(width, text_config.hidden_size, bias=False)
        self.embedding_post_projection_norm = Minigpt4oRMSNorm(text_config.hidden_size, eps=eps, with_scale=False)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,  # ids of this medium's rows, any shape
        inputs_embeds: torch.Tensor | None = None,  # (..., C) from the tower
    ) -> torch.Tensor:
        """(..., D)"""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids (hard tokens) or inputs_embeds (soft tokens), not both or neither")
        if inputs_embeds is not None:
            normed = self.soft_embedding_norm(inputs_embeds)
        else:
            assert input_ids is not None
            normed = self.hard_embedding_norm(self.embedding(input_ids - self.vocab_offset))
        return self.embedding_post_projection_norm(self.embedding_projection(normed))

    def replace(self, inputs_embeds: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The text's embeddings (B, T, D) with the hard embeddings of this medium at its ids (B, T)."""
        mine = (input_ids >= self.vocab_offset) & (input_ids < self.vocab_offset + self.vocab_size)
        if torch.compiler.is_compiling():  # fixed shapes: embed a row for every token, keep the few
            every = self(input_ids=torch.where(mine, input_ids, self.vocab_offset))
            return torch.where(mine[..., None], every.to(inputs_embeds.dtype), inputs_embeds)
        ids = input_ids[mine]
        if not len(ids) and not torch.is_grad_enabled():  # with gradients the table stays in the graph, as zeros
            return inputs_embeds
        few = self(input_ids=ids).to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds.masked_scatter(mine[..., None], few)


class Minigpt4oModel(Minigpt4oPreTrainedModel):
    """Text model, picture tower and sound tower, without a head."""

    config: Minigpt4oConfig
    accepts_loss_kwargs = False

    def __init__(self, config: Minigpt4oConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        vision: Any = config.vision_config
        audio: Any = config.audio_config
        self.vision_tower = Minigpt4oVisionEncoder._from_config(vision)
        self.language_model = Minigpt4oTextModel._from_config(text)
        self.audio_tower = Minigpt4oAudioEncoder._from_config(audio)
        self.embed_vision = Minigpt4oMultimodalEmbedder(vision, text)
        self.embed_audio = Minigpt4oMultimodalEmbedder(audio, text)
        self.post_init()

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Pictures (N, 3, H, W); `pooler_output` (N, S, D) are the soft tokens, `last_hidden_state` the scaled map."""
        outputs = self.vision_tower(pixel_values=pixel_values, do_pooling=False, return_dict=True, **kwargs)
        width, wanted = self.vision_tower.config.hidden_size, self.config.vision_soft_tokens_per_image
        features = outputs.last_hidden_state  # (N, C, h, w)
        tokens = features.shape[2:].numel()
        if features.shape[1] != width or tokens != wanted:
            raise ValueError(
                f"the picture tower gives {tokens} features of width {features.shape[1]} for a picture, but the "
                f"configuration says vision_soft_tokens_per_image {wanted} and vision hidden_size {width}"
            )
        outputs.last_hidden_state = features * width**0.5
        soft = outputs.last_hidden_state.flatten(2).transpose(1, 2)  # (N, S, C), row by row
        outputs.pooler_output = self.embed_vision(inputs_embeds=soft)
        return outputs

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor,  # (N, frames, mel bins)
        input_features_mask: torch.Tensor,  # (N, frames), True where there is padding
        **kwargs: Any,
    ) -> Any:
        """`pooler_output` (N, S, D) are the soft tokens, `audio_mel_mask` (N, S) is True where they are padding."""
        outputs = self.audio_tower(input_features, input_features_mask, return_dict=True, **kwargs)
        outputs.pooler_output = self.embed_audio(inputs_embeds=outputs.last_hidden_state)
        return outputs

    def _sound_tokens(self, input_features: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """Every sound as exactly audio_soft_tokens_per_image soft tokens (N, S, D), short ones filled up."""
        if valid is None:
            valid = torch.ones(input_features.shape[:2], dtype=torch.bool, device=input_features.device)
        outputs = self.get_audio_features(input_features, ~valid.bool(), return_dict=True)
        soft, padding = outputs.pooler_output, outputs.audio_mel_mask
        wanted = self.config.audio_soft_tokens_per_image
        assert wanted is not None
        if soft.shape[1] > wanted:
            raise ValueError(
                f"{input_features.shape[1]} audio frames become {soft.shape[1]} soft tokens but the configuration "
                f"says audio_soft_tokens_per_image {wanted}: cut the sounds"
            )
        # The filler is the embedding of the vocabulary's last token, which is the last sound row.
        table, text = self.embed_audio, self.config.get_text_config()
        last = min(text.vocab_size, table.vocab_offset + table.vocab_size) - 1
        filler = table(input_ids=torch.full((1, 1), last, dtype=torch.long, device=soft.device))
        soft = torch.where(padding.to(soft.device)[..., None], filler, soft)
        rest = filler.expand(soft.shape[0], wanted - soft.shape[1], -1)
        return torch.cat([soft, rest], dim=1)

    def get_placeholder_mask(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where pictures and sounds go, two masks (B, T, 1); an error where places and soft tokens disagree."""
        assert inputs_embeds is not None
        masks = []
        for kind, token, features in (
            ("Image", self.config.image_token_id, image_features),
            ("Audio", self.config.audio_token_id, audio_features),
        ):
            assert token is not None
            if input_ids is not None:
                mask = torch.eq(input_ids, token)
            else:  # only embeddings: a place is what the token's own embedding looks like
                ids = torch.full((), token, dtype=torch.long, device=inputs_embeds.device)
                mask = (inputs_embeds == self.get_input_embeddings()(ids)).all(-1)
            if features is not None and not torch.compiler.is_compiling():  # a graph cannot count
                self._compare(kind, token, int(mask.sum()), features)
            masks.append(mask[..., None].to(inputs_embeds.device))
        return masks[0], masks[1]

    @staticmethod
    def _compare(kind: str, token: int, places: int, features: torch.Tensor) -> None:
        pieces, soft = features.shape[:2]
        if places != pieces * soft:
            things = "picture" if kind == "Image" else "sound"
            raise ValueError(
                f"{kind} features and {kind.lower()} tokens do not match: the text holds {places} places "
                f"(token {token}) but {pieces} {things}(s) of {soft} soft tokens give {pieces * soft}; "
                f"write each {things} into the text once"
            )

    def _embed_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T, D): words from the text's table, ids of the media rows from their own tables."""
        embeds = self.get_input_embeddings()(input_ids)
        return self.embed_audio.replace(self.embed_vision.replace(embeds, input_ids), input_ids)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,  # (B, T)
        pixel_values: torch.Tensor | None = None,  # (N, 3, H, W)
        input_features: torch.Tensor | None = None,  # (N, frames, mel bins)
        attention_mask: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,  # (N, frames), True where there is sound; None: everywhere
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,  # (B, T, D), in place of input_ids
        per_layer_inputs: torch.Tensor | None = None,  # (B, T, L, P), beside inputs_embeds
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,  # {"image": what get_image_features gave}
        **kwargs: Any,
    ) -> Minigpt4oModelOutputWithPast:
        """Put the media into the text and run the language model over it."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None and per_layer_inputs is not None:
            raise ValueError("per_layer_inputs go with inputs_embeds: with input_ids they are looked up")
        images = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None and images is not None:
            raise ValueError("give pixel_values or mm_encoder_outputs, not both")
        if input_ids is not None:
            inputs_embeds = self._embed_text(input_ids)
            per_layer_inputs = self.language_model.get_per_layer_inputs(input_ids)
        assert inputs_embeds is not None

        image_features = audio_features = None
        if pixel_values is not None:
            images = self.get_image_features(pixel_values, return_dict=True)
        if images is not None:
            image_features = images.pooler_output.to(inputs_embeds.device, inputs_embeds.dtype)
        if input_features is not None:
            audio_features = self._sound_tokens(input_features, input_features_mask)
            audio_features = audio_features.to(inputs_embeds.device, inputs_embeds.dtype)
        if image_features is not None or audio_features is not None:
            masks = self.get_placeholder_mask(input_ids, inputs_embeds, image_features, audio_features)
            for mask, features in zip(masks, (image_features, audio_features), strict=True):
                if features is not None:
                    inputs_embeds = inputs_embeds.masked_scatter(mask, features)

        outputs = self.language_model(
            per_layer_inputs=per_layer_inputs,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return Minigpt4oModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=image_features,
            audio_hidden_states=audio_features,
        )


class Minigpt4oForConditionalGeneration(Minigpt4oPreTrainedModel, GenerationMixin):
    """The whole: text, pictures and sounds in, text out. The head is the text embedding unless untied."""

    config: Minigpt4oConfig
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan: ClassVar[dict[str, str]] = {"lm_head": "colwise_gather_output"}
    accepts_loss_kwargs = False

    def __init__(self, config: Minigpt4oConfig) -> None:
        super().__init__(config)
        text = config.get_text_config()
        self.model = Minigpt4oModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_audio_features(self, input_features: torch.Tensor, input_features_mask: torch.Tensor, **kwargs: Any) -> Any:
        return self.model.get_audio_features(input_features, input_features_mask, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,  # (B, T), -100 where nothing is to be learned
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        per_layer_inputs: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        loss_chunk: int | None = None,  # with labels: the loss in pieces of so many positions, and no logits
        **kwargs: Any,
    ) -> Minigpt4oCausalLMOutputWithPast:
        """The arguments of Minigpt4oModel; `labels` add the loss of the next tokens."""
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            input_features=input_features,
            attention_mask=attention_mask,
            input_features_mask=input_features_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            per_layer_inputs=per_layer_inputs,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        loss, logits = self._head(outputs.last_hidden_state, labels, logits_to_keep, loss_chunk, **kwargs)
        return Minigpt4oCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            audio_hidden_states=outputs.audio_hidden_states,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        *args: Any,
        inputs_embeds: torch.Tensor | None = None,
        per_layer_inputs: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; what the layers are told of a prompt of embeddings goes with its first pass only."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        used = inputs.get("inputs_embeds")
        if inputs_embeds is not None and used is not None:
            if per_layer_inputs is None and input_ids.shape[1] == inputs_embeds.shape[1]:
                per_layer_inputs = self.model.language_model.get_per_layer_inputs(input_ids)
            if per_layer_inputs is not None:
                inputs["per_layer_inputs"] = per_layer_inputs[:, -used.shape[1] :]
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **model_kwargs: Any
    ) -> Any:
        """Beams and several answers: repeat the sounds of each row as a group (the base class does so for pictures)."""
        sounds = {
            key: model_kwargs.pop(key)
            for key in ("input_features", "input_features_mask")
            if expand_size > 1 and isinstance(model_kwargs.get(key), torch.Tensor)
        }
        if sounds and input_ids is not None and input_ids.numel():
            places = (input_ids == self.config.audio_token_id).sum(-1)
            per_row = (places // self.config.audio_soft_tokens_per_image).tolist()
            if sum(per_row) == len(sounds["input_features"]):
                groups = torch.arange(sum(per_row)).split(per_row)
                order = torch.cat([group.repeat(expand_size) for group in groups])
                sounds = {key: value[order.to(value.device)] for key, value in sounds.items()}
        elif sounds:
            sounds = {key: value.repeat_interleave(expand_size, dim=0) for key, value in sounds.items()}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, {**model_kwargs, **sounds}


__all__ = ["Minigpt4oForConditionalGeneration", "Minigpt4oModel", "Minigpt4oMultimodalEmbedder"]

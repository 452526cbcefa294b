"""Minigpt4o's text model and its language model head."""

# B rows, T tokens, S keys (the cached ones included), D width, A streams of AltUp, L layers,
# P width of a per-layer input, C width of an attention head, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import PrefixChange
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oTextConfig
from minigpt4o.models.minigpt4o.layers import (
    Minigpt4oRMSNorm,
    Minigpt4oRotaryEmbedding,
    Minigpt4oTextScaledWordEmbedding,
    RoundedScale,
)
from minigpt4o.models.minigpt4o.modeling_base import (
    Minigpt4oPreTrainedModel,
    Minigpt4oTextDecoderLayer,
    SharedKeysValues,
    last_token_only,
)

logger = logging.get_logger(__name__)

MASKS = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}
LEAST_POWER = 1e-5  # below it a stream counts as silent and is not blown up


def power(x: Tensor) -> Tensor:
    """Mean square over the last dimension, kept as a dimension of 1."""
    return x.square().mean(-1, keepdim=True)


@dataclass
class Context:
    """What the layers of one forward pass need beside the hidden states."""

    masks: dict[str, Any]  # layer type -> (B, 1, T, S), or what the attention implementation has in its place
    ropes: dict[str, tuple[Tensor, Tensor]]  # layer type -> (B, T, 1, C) twice
    position_ids: Tensor  # (B, T)

    def narrows(self, shared: SharedKeysValues, kwargs: dict[str, Any], config: Minigpt4oTextConfig) -> bool:
        """Whether the last token can go on alone: nobody records the others, and its mask is plain to see."""
        if self.position_ids.shape[-1] == 1 or any(
            kwargs.get(name, getattr(config, name, False)) for name in ("output_hidden_states", "output_attentions")
        ):
            return False
        for kind, (keys, _) in shared.states.items():
            mask = self.masks[kind]
            if mask is None:  # causal by itself: right for one query if no empty cache slots follow it
                if keys.shape[2] != self.position_ids.shape[-1]:
                    return False
            elif not (isinstance(mask, Tensor) and mask.ndim == 4):
                return False
        return True

    def last(self) -> Context:
        """The same for the last token alone."""
        masks = {kind: mask if mask is None else mask[:, :, -1:] for kind, mask in self.masks.items()}
        ropes = {kind: (cos[:, -1:], sin[:, -1:]) for kind, (cos, sin) in self.ropes.items()}
        return Context(masks, ropes, self.position_ids[:, -1:])


def loudness_of(x: Tensor) -> Tensor:
    """Root mean square over the last dimension; not quite 0 for silent padding, as a root has no gradient there."""
    return power(x).clamp(min=torch.finfo(x.dtype).tiny).sqrt()


class Minigpt4oTextModel(Minigpt4oPreTrainedModel):
    """Token ids (or embeddings) to hidden states."""

    config: Minigpt4oTextConfig
    input_modalities = ("text",)

    def __init__(self, config: Minigpt4oTextConfig) -> None:
        super().__init__(config)
        assert config.layer_types is not None
        self.layer_types = list(config.layer_types)
        width, streams, layers = config.hidden_size, config.altup_num_inputs, config.num_hidden_layers
        narrow, eps = config.hidden_size_per_layer_input, config.rms_norm_eps
        self.padding_idx, self.vocab_size = config.pad_token_id, config.vocab_size
        self.hidden_size, self.hidden_size_per_layer_input = width, narrow
        if not 0 <= config.altup_active_idx < streams:
            raise ValueError(f"altup_active_idx {config.altup_active_idx} is none of the {streams} altup_num_inputs")

        self.embed_tokens = Minigpt4oTextScaledWordEmbedding(config.vocab_size, width, self.padding_idx, width**0.5)
        self.layers = nn.ModuleList(Minigpt4oTextDecoderLayer(config, i) for i in range(layers))
        self.norm = Minigpt4oRMSNorm(width, eps=eps)
        self.rotary_emb = Minigpt4oRotaryEmbedding(config)
        self.gradient_checkpointing = False

        self.embed_tokens_per_layer = Minigpt4oTextScaledWordEmbedding(
            config.vocab_size_per_layer_input, layers * narrow, self.padding_idx, narrow**0.5
        )
        self.per_layer_model_projection = nn.Linear(width, layers * narrow, bias=False)
        self.per_layer_projection_norm = Minigpt4oRMSNorm(narrow, eps=eps)
        self.projection_scale, self.input_scale = RoundedScale(width**-0.5), RoundedScale(2**-0.5)

        def maps() -> nn.ModuleList:
            return nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(1, streams))

        self.altup_projections, self.altup_unembed_projections = maps(), maps()
        # The last layers read keys and values of earlier ones; published weights hold maps for them all the same.
        readers = [i for i, mode in enumerate(config.kv_sharing_modes) if mode == "reuse"]
        self.first_reader = readers[0] if readers else layers
        self._keys_to_ignore_on_load_unexpected = [
            f"layers.{i}.self_attn.{name}" for i in readers for name in ("k_proj", "v_proj", "k_norm", "v_norm")
        ]
        self.post_init()

    def get_per_layer_inputs(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, L, P): what each layer is told of each token; ids beyond the table read its row 0."""
        known = (input_ids >= 0) & (input_ids < self.config.vocab_size_per_layer_input)
        rows = self.embed_tokens_per_layer(torch.where(known, input_ids, 0))
        return rows.view(*input_ids.shape, self.config.num_hidden_layers, self.hidden_size_per_layer_input)

    def project_per_layer_inputs(self, inputs_embeds: Tensor, per_layer_inputs: Tensor | None = None) -> Tensor:
        """(B, T, D) and what is told of the tokens (B, T, L or more, P) -> (B, T, L, P)."""
        layers = self.config.num_hidden_layers
        context = self.projection_scale(self.per_layer_model_projection(inputs_embeds))
        context = context.view(*inputs_embeds.shape[:-1], layers, self.hidden_size_per_layer_input)
        context = self.per_layer_projection_norm(context)
        if per_layer_inputs is None:
            return context
        return self.input_scale(context + per_layer_inputs[..., :layers, :])

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: Tensor | None = None,
        per_layer_inputs: Tensor | None = None,
        attention_mask: Tensor | dict[str, Any] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        last_only: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """`input_ids` (B, T), `inputs_embeds` (B, T, D), or both: then the ids serve the per-layer inputs only.

        `per_layer_inputs` (B, T, L, P), from `get_per_layer_inputs`, go before what the ids would give; embeddings
        alone leave the layers without the tokens' identity. With `last_only` the caller needs the state of the last
        token alone: layers that only read keys and values may then skip the others, and the result may be (B, 1, D).
        """
        if input_ids is None and inputs_embeds is None:
            raise ValueError("give input_ids or inputs_embeds (or both: the ids then serve the per-layer inputs)")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen).unsqueeze(0)
        context = self._context(inputs_embeds, attention_mask, position_ids, past_key_values)
        per_layer = self._per_layer(input_ids, inputs_embeds, per_layer_inputs)

        hidden, shared = self._spread(inputs_embeds), SharedKeysValues()
        for i, (layer, kind) in enumerate(zip(self.layers, self.layer_types, strict=True)):
            if i == self.first_reader:
                self._check_gradients(hidden, shared)
            if i == self.first_reader and last_only and context.narrows(shared, kwargs, self.config):
                hidden, context = hidden[:, :, -1:], context.last()
                per_layer = [x if x is None else x[:, -1:] for x in per_layer]
            hidden = layer(
                hidden,
                context.ropes[kind],
                per_layer[i],
                attention_mask=context.masks[kind],
                position_ids=context.position_ids,
                past_key_values=past_key_values,
                shared_kv_states=shared,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(self._gather(hidden)), past_key_values=past_key_values
        )

    def _context(self, x: Tensor, masks: Any, position_ids: Tensor, past: Cache | None) -> Context:
        """Masks and rotary tables, once for each type of layer; `generate` may bring the masks ready made."""
        kinds = set(self.layer_types)
        if not isinstance(masks, dict):
            known = {"past_key_values": past, "position_ids": position_ids, "attention_mask": masks}
            masks = {kind: MASKS[kind](config=self.config, inputs_embeds=x, **known) for kind in kinds}
        tables = {kind: self.rotary_emb(x, position_ids, kind) for kind in kinds}
        ropes = {kind: (cos.unsqueeze(2), sin.unsqueeze(2)) for kind, (cos, sin) in tables.items()}
        return Context(masks, ropes, position_ids)

    def _per_layer(
        self, input_ids: Tensor | None, inputs_embeds: Tensor, given: Tensor | None
    ) -> Sequence[Tensor | None]:
        """The per-layer input (B, T, P) of each layer; None for all where the feature is off."""
        if not self.hidden_size_per_layer_input:
            return [None] * self.config.num_hidden_layers
        if given is None and input_ids is not None:
            given = self.get_per_layer_inputs(input_ids)
        # unbind, as the gradient of so many slices would be so many full tensors
        return self.project_per_layer_inputs(inputs_embeds, given).unbind(2)

    @staticmethod
    def _check_gradients(hidden: Tensor, shared: SharedKeysValues) -> None:
        """Reentrant checkpointing hides the keys and values of earlier layers from the gradients of later ones."""
        if hidden.requires_grad and not all(keys.requires_grad for keys, _ in shared.states.values()):
            logger.warning_once(
                "The layers that share keys and values send them no gradient: checkpoint with "
                'gradient_checkpointing_kwargs={"use_reentrant": False}.'
            )

    def _spread(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (A, B, T, D) streams: x itself and maps of it that are as loud as x."""
        streams, loudness = [x], loudness_of(x)
        for project in self.altup_projections:
            streams.append(self._as_loud(project(x), loudness))
        return torch.stack(streams, dim=-2).permute(2, 0, 1, 3)  # each token's streams lie together in memory

    def _gather(self, hidden: Tensor) -> Tensor:
        """(A, B, T, D) streams -> (B, T, D): the mean of their maps, each as loud as the first."""
        first, *others = hidden.unbind()
        total, loudness = first, loudness_of(first)
        for stream, project in zip(others, self.altup_unembed_projections, strict=True):
            total = total + self._as_loud(project(stream), loudness)
        return total / len(hidden)

    @staticmethod
    def _as_loud(x: Tensor, loudness: Tensor) -> Tensor:
        return x * (loudness / power(x).clamp(min=LEAST_POWER).sqrt())


class Minigpt4oForCausalLM(Minigpt4oPreTrainedModel, GenerationMixin):
    """The text model with its (tied) head and the soft cap on the logits."""

    config: Minigpt4oTextConfig
    input_modalities = ("text",)
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan: ClassVar[dict[str, str]] = {"lm_head": "colwise_gather_output"}
    _pp_plan: ClassVar[dict[str, Any]] = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan: ClassVar[dict[str, str]] = {"lm_head": "keep_full_weight"}

    def __init__(self, config: Minigpt4oTextConfig) -> None:
        super().__init__(config)
        self.model = Minigpt4oTextModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        per_layer_inputs: Tensor | None = None,
        loss_chunk: int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Inputs as for `Minigpt4oTextModel`; `labels` (B, T) hold ids to learn, -100 elsewhere.

        `loss_chunk` (or `config.loss_chunk`), with labels: the loss is computed at learned positions only, so many at
        a time, and `logits` is None; (B, T, V) logits never exist.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            per_layer_inputs=per_layer_inputs,
            last_only=last_token_only(labels, logits_to_keep),
            **kwargs,
        )
        loss, logits = self._head(outputs.last_hidden_state, labels, logits_to_keep, loss_chunk, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,  # `generate` looks for this name
        per_layer_inputs: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; what the layers are told of a prompt of embeddings goes with its first pass only."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        embeds = inputs.get("inputs_embeds")
        if embeds is not None and inputs_embeds is not None:
            if per_layer_inputs is None and input_ids.shape[1] == inputs_embeds.shape[1]:
                per_layer_inputs = self.model.get_per_layer_inputs(input_ids)
            if per_layer_inputs is not None:
                inputs["per_layer_inputs"] = per_layer_inputs[:, -embeds.shape[1] :]
        return inputs


# The text model also opens folders of the whole model, where its weights stand under `language_model`.
register_checkpoint_conversion_mapping(
    "minigpt4o_text", [PrefixChange(prefix_to_remove="language_model", model_prefix="model")], overwrite=True
)

__all__ = ["Minigpt4oForCausalLM", "Minigpt4oTextModel"]

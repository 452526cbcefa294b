"""Attention and decoder layer of Minigpt4o's text model, and the base class of all Minigpt4o models."""

# B rows, T tokens, D width, A streams of AltUp, P width of a per-layer input, H query heads, K key/value heads,
# C width of a head, S keys (the cached ones included), V vocabulary, L layers, n learned positions

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from minigpt4o.models.minigpt4o.configuration_minigpt4o import Minigpt4oConfig, Minigpt4oTextConfig
from minigpt4o.models.minigpt4o.layers import (
    Minigpt4oRMSNorm,
    Minigpt4oTextAltUp,
    Minigpt4oTextLaurelBlock,
    Minigpt4oTextMLP,
    rotate,
)

IGNORED = -100  # the label of a position that is not learned


class SharedKeysValues:
    """What the last layers read: for each layer type, the keys and values of the last layer that made its own.

    Not a dict, so that hooks which move arguments between devices call `to` and do not build another one.
    """

    def __init__(self) -> None:
        self.states: dict[str, tuple[Tensor, Tensor]] = {}

    def to(self, device: Any, non_blocking: bool = False) -> SharedKeysValues:
        for kind, (keys, values) in self.states.items():
            self.states[kind] = keys.to(device, non_blocking=non_blocking), values.to(device, non_blocking=non_blocking)
        return self


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Plain attention that also returns its weights: (B, H, T, C), 2 x (B, K, S, C) -> (B, T, H, C), (B, H, T, S).

    The H / K query heads of one key head stand as rows of one product, so no key or value is copied.
    """
    rows, heads, tokens, width = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, width)  # (B, K, H / K * T, C)
    scores = torch.matmul(grouped, key.transpose(2, 3)).view(rows, heads, tokens, -1)
    if scaling != 1.0:
        scores = scores * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    mixed = torch.matmul(weights.view(rows, key.shape[1], -1, weights.shape[-1]), value)
    return mixed.view(rows, heads, tokens, width).transpose(1, 2), weights


class Minigpt4oTextAttention(nn.Module):
    """Attention with normed queries, keys and values; a layer that shares has no key and value maps of its own."""

    def __init__(self, config: Minigpt4oTextConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.layer_types is not None
        self.config, self.layer_idx, self.layer_type = config, layer_idx, config.layer_types[layer_idx]
        self.is_sliding = self.layer_type == "sliding_attention"
        self.sliding_window = config.sliding_window if self.is_sliding else None
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling, self.is_causal = 1.0, True  # the norms keep the scores in range
        self.attention_dropout = config.attention_dropout or 0.0
        mode = config.kv_sharing_modes[layer_idx]
        self.is_kv_shared_layer, self.store_full_length_kv = mode == "reuse", mode == "store"

        width, eps, bias = config.hidden_size, config.rms_norm_eps, config.attention_bias
        inner, narrow = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(width, inner, bias=bias)
        self.q_norm = Minigpt4oRMSNorm(self.head_dim, eps=eps)
        if not self.is_kv_shared_layer:
            self.k_proj = nn.Linear(width, narrow, bias=bias)
            self.v_proj = nn.Linear(width, narrow, bias=bias)
            self.k_norm = Minigpt4oRMSNorm(self.head_dim, eps=eps)
            self.v_norm = Minigpt4oRMSNorm(self.head_dim, eps=eps, with_scale=False)
        self.o_proj = nn.Linear(inner, width, bias=bias)

    def _keys_values(
        self, x: Tensor, rope: tuple[Tensor, Tensor], past: Cache | None, shared: SharedKeysValues
    ) -> tuple[Tensor, Tensor]:
        """(B, K, S, C) twice: of an earlier layer, or of this layer's tokens behind the cached ones."""
        if self.is_kv_shared_layer:
            return shared.states[self.layer_type]  # a sliding cache would have dropped some of them already
        heads = (*x.shape[:-1], -1, self.head_dim)
        keys = rotate(self.k_norm(self.k_proj(x).view(heads)), *rope).transpose(1, 2)
        values = self.v_norm(self.v_proj(x).view(heads)).transpose(1, 2)
        if past is not None:
            keys, values = past.update(keys, values, self.layer_idx)
        if self.store_full_length_kv:
            shared.states[self.layer_type] = keys, values
        return keys, values

    def forward(
        self,
        hidden_states: Tensor,  # (B, T, D)
        position_embeddings: tuple[Tensor, Tensor],  # each (B, T, 1, C)
        attention_mask: Any = None,
        past_key_values: Cache | None = None,
        shared_kv_states: SharedKeysValues | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        rows_tokens = hidden_states.shape[:-1]
        query = self.q_norm(self.q_proj(hidden_states).view(*rows_tokens, -1, self.head_dim))
        query = rotate(query, *position_embeddings).transpose(1, 2)
        shared = SharedKeysValues() if shared_kv_states is None else shared_kv_states
        keys, values = self._keys_values(hidden_states, position_embeddings, past_key_values, shared)

        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attend(
            self,
            query,
            keys,
            values,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return self.o_proj(mixed.reshape(*rows_tokens, -1)), weights


class Minigpt4oTextDecoderLayer(GradientCheckpointingLayer):
    """AltUp around attention and MLP, LAuReL beside the attention, the per-layer input added to all streams but one."""

    def __init__(self, config: Minigpt4oTextConfig, layer_idx: int) -> None:
        super().__init__()
        width, narrow = config.hidden_size, config.hidden_size_per_layer_input
        self.layer_idx, self.hidden_size, self.hidden_size_per_layer_input = layer_idx, width, narrow
        self.self_attn = Minigpt4oTextAttention(config, layer_idx)
        self.mlp = Minigpt4oTextMLP(config, layer_idx)
        self.altup = Minigpt4oTextAltUp(config)
        self.laurel = Minigpt4oTextLaurelBlock(config)
        self.act_fn = ACT2FN[config.hidden_activation]
        self.per_layer_input_gate = nn.Linear(width, narrow, bias=False)
        self.per_layer_projection = nn.Linear(narrow, width, bias=False)
        self.input_layernorm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)
        self.pre_feedforward_layernorm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)
        self.post_feedforward_layernorm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)
        self.post_per_layer_input_norm = Minigpt4oRMSNorm(width, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden_states: Tensor,  # (A, B, T, D), as outputs record it
        position_embeddings: tuple[Tensor, Tensor],
        per_layer_input: Tensor | None = None,  # (B, T, P)
        **kwargs: Any,  # for the attention
    ) -> Tensor:
        first, others = self.altup.predict(hidden_states.permute(1, 2, 0, 3))
        active = self.altup.pick(first, others)
        normed = self.input_layernorm(active)
        attended, _ = self.self_attn(normed, position_embeddings, **kwargs)
        attended = active + self.post_attention_layernorm(attended)
        attended = (attended + self.laurel(normed)) / math.sqrt(2)
        widened = self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(attended)))

        first, others = self.altup.correct(first, others, attended + widened)
        if per_layer_input is not None:
            gate = self.act_fn(self.per_layer_input_gate(self.altup(self.altup.pick(first, others))))
            extra = self.post_per_layer_input_norm(self.per_layer_projection(gate * per_layer_input))
            others = others + extra.unsqueeze(-2)
        return torch.cat((first.unsqueeze(-2), others), -2).permute(2, 0, 1, 3)


def kept(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """The positions of (B, T, D) whose logits are wanted: the last so many (0: all), these indices, or this mask."""
    if isinstance(logits_to_keep, int):
        return hidden[:, -logits_to_keep:] if logits_to_keep else hidden
    if logits_to_keep.ndim == 1:
        return hidden[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return hidden[logits_to_keep]
    return torch.take_along_dim(hidden, logits_to_keep.unsqueeze(-1), dim=1)


def last_token_only(labels: Tensor | None, logits_to_keep: int | Tensor) -> bool:
    """Whether a forward pass is asked for the logits of the last token and nothing else, as `generate` does."""
    return labels is None and isinstance(logits_to_keep, int) and logits_to_keep == 1


def chunked_loss(
    score: Callable[[Tensor], Tensor], hidden: Tensor, following: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies at learned positions and their count, with the logits of one chunk at a time.

    `score` maps (n, D) states to (n, V) logits; `following` (B, T) holds the id each of `hidden` (B, T, D) has to
    predict, or -100. The logits of a chunk are made again in the backward pass.
    """
    learned = following != IGNORED
    states, targets = hidden[learned], following[learned]

    def one(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(score(part).float(), target, reduction="sum")

    total = states.float().sum() * 0.0  # keeps the graph where nothing is learned
    for part, target in zip(states.split(chunk), targets.split(chunk), strict=True):
        total = total + checkpoint(one, part, target, use_reentrant=False)
    return total, learned.sum()


class Minigpt4oPreTrainedModel(PreTrainedModel):
    """What all Minigpt4o models share: what they support, how they start, how their vocabulary grows.

    A module with parameters or buffers that the general rules do not fill offers `init_own()`, which fills them with
    the functions of `transformers.initialization` (these leave loaded values alone).
    """

    config: Minigpt4oConfig
    config_class = Minigpt4oConfig
    base_model_prefix = "model"
    input_modalities: tuple[str, ...] = ("image", "text", "audio")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Minigpt4oTextDecoderLayer"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": Minigpt4oTextDecoderLayer,
        "attentions": Minigpt4oTextAttention,
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Transformers reads the class of the configuration off the annotation, which may be a string here."""
        super().__init_subclass__(**kwargs)
        if isinstance(cls.config_class, str):
            cls.config_class = get_type_hints(cls)["config"]

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Transformers would search the source for it. All parts take any name; the towers compute their own way."""
        return True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        own = getattr(module, "init_own", None)
        if callable(own):
            own()

    def _text_model(self) -> Any:
        """The text model that holds the per-layer embeddings."""
        base = self.base_model
        return getattr(base, "language_model", base)

    def get_per_layer_input_embeddings(self) -> nn.Embedding:
        return self._text_model().embed_tokens_per_layer

    def set_per_layer_input_embeddings(self, value: nn.Embedding) -> None:
        self._text_model().embed_tokens_per_layer = value

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Grow or cut the vocabulary; the per-layer table follows and what it said of old tokens stays as it was.

        Ids beyond the per-layer table (pictures, sounds) read its row 0, so the rows they get are copies of row 0; so
        are those of new tokens.
        """
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if new_num_tokens is not None or pad_to_multiple_of is not None:
            self._resize_per_layer_table(embeddings.weight.shape[0])
        return embeddings

    @torch.no_grad()
    def _resize_per_layer_table(self, rows: int) -> None:
        table, config = self.get_per_layer_input_embeddings(), self.config.get_text_config()
        old = table.weight
        new = old.new_empty(rows, old.shape[1])
        new[: old.shape[0]] = old[:rows]
        new[old.shape[0] :] = old[0]
        table.weight = nn.Parameter(new, requires_grad=old.requires_grad)
        table.num_embeddings = config.vocab_size_per_layer_input = rows

    def _head(
        self,
        hidden: Tensor,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        loss_chunk: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(loss, logits) of the hidden states (B, T, D) under `self.lm_head` and the soft cap.

        With labels and `loss_chunk`, the loss is computed at learned positions only, `loss_chunk` of them at a time,
        and no logits are returned.
        """
        if loss_chunk is None:
            loss_chunk = getattr(self.config, "loss_chunk", None)
        if labels is not None and loss_chunk:
            return self._loss_in_chunks(hidden, labels, loss_chunk, **kwargs), None
        logits = self._score(kept(hidden, logits_to_keep))
        if labels is None:
            return None, logits
        return self.loss_function(logits, labels, self.config.get_text_config().vocab_size, **kwargs), logits

    def _score(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) logits, soft-capped."""
        logits, cap = self.lm_head(hidden), self.config.get_text_config().final_logit_softcapping
        return logits if cap is None else torch.tanh_(logits / cap) * cap

    def _loss_in_chunks(self, hidden: Tensor, labels: Tensor, chunk: int, **kwargs: Any) -> Tensor:
        following = kwargs.get("shift_labels")
        if following is None:
            following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        total, count = chunked_loss(self._score, hidden, following.to(hidden.device), chunk)
        items = kwargs.get("num_items_in_batch")
        return total / (count.clamp(min=1) if items is None else torch.as_tensor(items, device=total.device))

"""Minigpt4o's language model, seen through the doors that generation and serving know of any language model."""

# B rows, T tokens, D width of the text, L layers, P width of a per-layer input, V vocabulary

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt4o.common.errors import DataError
from minigpt4o.models.loss import Head


class NativeLLM:
    """A view of a Minigpt4o that owns no weights.

    Each layer is told which word stands where, so a place in the text is more than an embedding. Here it is one vector
    of D + L * P numbers: the embedding, then what each layer is told. `embed` makes them and `hidden` takes them apart.
    """

    def __init__(self, whole: Any, tokenizer: Any) -> None:
        self.whole = whole  # Minigpt4oForConditionalGeneration
        self.tokenizer = tokenizer
        self.model = _Beams(self)

    @property
    def text(self) -> Any:
        """The text model itself."""
        return self.whole.model.language_model

    @property
    def config(self) -> Any:
        return self.whole.config.get_text_config()

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def eos_ids(self) -> list[int]:
        """Ids that end an answer: of the tokenizer and of the model's configuration."""
        more = self.config.eos_token_id
        ids = [self.tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])]
        return sorted({int(i) for i in ids if i is not None})

    @property
    def max_positions(self) -> int:
        """Longest sequence the model was made for."""
        return int(self.config.max_position_embeddings)

    @property
    def head(self) -> Head:
        """The output map; fetched at each use because engines may move the weights."""
        tied = self.config.tie_word_embeddings
        weight = self.text.embed_tokens.weight if tied else self.whole.lm_head.weight
        return Head(weight, None, 1.0, float(self.config.final_logit_softcapping or 0.0))

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        return self.head.logits(hidden)

    def words(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D): words from the text's table, marks of media from tables of their own."""
        return self.whole.model._embed_text(ids)

    def told(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """(B, T) ids and (B, T, D) -> (B, T, D + L * P); ids below 0 are places of media, which tell nothing."""
        if not self.config.hidden_size_per_layer_input:
            return embeddings
        rows = self.text.get_per_layer_inputs(ids).flatten(2)
        return torch.cat([embeddings, rows.to(embeddings.dtype)], dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D + L * P)."""
        return self.told(ids, self.words(ids))

    def apart(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, T, D + L * P) -> (B, T, D) and (B, T, L, P)."""
        width, narrow = self.config.hidden_size, self.config.hidden_size_per_layer_input
        if not narrow:
            return inputs, None
        embeddings, rows = inputs.split([width, inputs.shape[-1] - width], dim=-1)
        return embeddings, rows.unflatten(-1, (-1, narrow))

    def hidden(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """(B, T, D + L * P) -> last hidden states (B, T, D), ready for the head; `cache` is extended in place."""
        self._check_length(inputs.shape[1] + (cache.get_seq_length() if cache is not None else 0))
        embeddings, rows = self.apart(inputs)
        out = self.text(
            inputs_embeds=embeddings,
            per_layer_inputs=rows,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            return_dict=True,
        )
        return out.last_hidden_state

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_positions:
            raise DataError(
                f"a row of {tokens} places (text and media) does not fit the model's {self.max_positions} positions; "
                "lower model.max_txt_len, or raise max_position_embeddings of model.options.text_config"
            )

    def new_cache(self) -> Any:
        """An empty key-value cache for `hidden`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.config)


class _Beams:
    """What beam search and the chat ask of a model of transformers."""

    def __init__(self, doors: NativeLLM) -> None:
        self.doors = doors

    @property
    def config(self) -> Any:
        return self.doors.config

    @property
    def dtype(self) -> torch.dtype:
        return self.doors.text.embed_tokens.weight.dtype

    def generate(self, inputs_embeds: Tensor, **options: Any) -> Tensor:
        """The new ids of each row's best beam."""
        embeddings, rows = self.doors.apart(inputs_embeds)
        more = {} if rows is None else {"per_layer_inputs": rows}
        return self.doors.whole.generate(inputs_embeds=embeddings, **more, **options)

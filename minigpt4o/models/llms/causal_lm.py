"""Any causal language model of transformers, seen through the few doors the aligned model needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from minigpt4o.common.errors import ConfigError, DataError
from minigpt4o.common.registry import registry
from minigpt4o.models.llms.loading import check_family, draw_weights, hf_source, load_weights
from minigpt4o.models.llms.tokenizer_files import load_tokenizer
from minigpt4o.models.loss import Head

__all__ = ["CausalLM", "hf_source", "load_tokenizer"]


@registry.register("llm", "causal_lm")
class CausalLM(nn.Module):
    """A causal LM: from a Hugging Face folder, from one of our own runs, or drawn at random from a configuration."""

    @dataclass
    class Config:
        path: str = ""  # Hugging Face folder (or its name in a weight folder), hub name (org/name), or run that made it
        model_type: str = "llama"  # family drawn at random if `path` is empty (llama, gpt2, gpt_neox, qwen2, ...)
        options: dict[str, Any] = field(default_factory=dict)  # values of that family's configuration class
        seed: int = 0  # of the random weights
        tokenizer: str = ""  # folder of the tokenizer; empty: the one beside the weights
        tokenizer_kind: Literal["auto", "transformers", "sentencepiece"] = "auto"  # auto: SentencePiece for Llama, T5
        pad_token: str = ""  # a word of the vocabulary to pad with ("$$" in MiniGPT-4); empty: the tokenizer's own
        attn_implementation: str = "sdpa"  # attention code of transformers: sdpa, eager, flash_attention_2, ...
        quantize: Literal["", "8bit", "4bit"] = ""  # hold the frozen linear maps in so few bits (needs bitsandbytes)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.from_scratch = not config.path
        if config.path:
            source = hf_source(config.path)
            self.tokenizer = self._tokenizer(config.tokenizer or source)
            self.model: Any = load_weights(source, config.attn_implementation, config.quantize)
        else:
            _check_drawn(config)
            self.tokenizer = self._tokenizer(config.tokenizer)
            self.model = self._drawn()
        check_family(self.model)
        rows = self.model.get_input_embeddings().weight.shape[0]
        if rows < len(self.tokenizer):
            raise ConfigError(
                f"model.llm: the tokenizer has {len(self.tokenizer)} words but the language model only {rows} rows "
                "of embeddings; give the tokenizer that belongs to it"
            )

    def _tokenizer(self, source: str) -> Any:
        return load_tokenizer(source, self.config.tokenizer_kind, self.config.pad_token)

    def _drawn(self) -> nn.Module:
        config, tokenizer = self.config, self.tokenizer
        options = {
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **config.options,
        }
        return draw_weights(config.model_type, options, config.seed, config.attn_implementation)

    @property
    def width(self) -> int:
        """Size of an input embedding."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def eos_ids(self) -> list[int]:
        """Ids that end an answer: of the tokenizer and of the model's generation settings."""
        ids = [self.tokenizer.eos_token_id]
        settings = getattr(self.model, "generation_config", None)
        more = getattr(settings, "eos_token_id", None)
        ids += more if isinstance(more, list) else [more]
        return sorted({int(i) for i in ids if i is not None})

    @property
    def head(self) -> Head:
        """The output map; fetched at each use because engines may move or gather the weights."""
        out = self.model.get_output_embeddings()
        config = self.model.config.get_text_config()
        scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1)
        cap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
        return Head(out.weight, getattr(out, "bias", None), scale, cap)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32, through the module itself."""
        return self.head.finish(self.model.get_output_embeddings()(hidden))

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D)."""
        return self.model.get_input_embeddings()(ids)

    def hidden(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """Last hidden states (B, T, D), ready for the head. `cache` (transformers) is extended in place."""
        self.check_length(inputs_embeds.shape[1] + (cache.get_seq_length() if cache is not None else 0))
        out = self.model.base_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model was made for, where it says so."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def check_length(self, tokens: int) -> None:
        """Refuse a sequence for which the model has no positions."""
        if self.max_positions is not None and tokens > self.max_positions:
            raise DataError(
                f"a row of {tokens} places (text and features) does not fit the language model's {self.max_positions} "
                "positions; lower model.max_txt_len or choose a bridge with fewer tokens"
            )

    def new_cache(self) -> Any:
        """An empty key-value cache for `hidden`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def checkpoint_layers(self) -> None:
        """Trade time for memory: layers are computed again in the backward pass."""
        if hasattr(self.model, "activation_checkpointing_enable"):  # the name since transformers 5.20
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def wake_checkpointed_layers(self) -> None:
        """Transformers checkpoints a layer only in training mode; its children (dropout) stay as they are."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True

    def export(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer as a Hugging Face folder; adapters are merged in."""
        from minigpt4o.models.lora import merged

        merged(self.model).save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)


def _check_drawn(config: CausalLM.Config) -> None:
    if not config.tokenizer:
        raise ConfigError("model.llm: a random language model needs `tokenizer`, the folder of its tokenizer")
    if config.quantize:
        raise ConfigError(
            f"model.llm.quantize: {config.quantize} is for a pretrained model; give `path`, or leave quantize empty"
        )

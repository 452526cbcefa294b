"""What a model tells the data side (tokenizer, template, places of media, length of a row), without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.template import Template
from minigpt4o.models.base import conversation_of

_ANY_WIDTH = 16  # of the language model: how many tokens a bridge makes does not depend on it
# What networks raise on the meta device, where shapes are known and numbers are not.
_NO_NUMBERS = (RuntimeError, NotImplementedError, ValueError, TypeError)


@dataclass(frozen=True)
class Outline:
    """As much of a model as `runners.build.build_encoders` asks for."""

    tokenizer: Any
    conversation: Template
    slots: dict[str, int]  # media kind -> places one picture or sound fills
    max_txt_len: int
    config: Any  # of the model's class
    llm: Any  # `max_positions`: longest row of the language model; None if it does not say


def outline(chosen: Part) -> Outline:
    """The outline of the model that a configuration names; a few seconds at most, whatever its size.

    Raises ConfigError or CheckpointError where tokenizer or settings are not there, or if the model is of a kind that
    cannot be told without its weights.
    """
    config = config_of(chosen)
    if not hasattr(config, "template"):
        raise ConfigError(f"model {chosen.name} has no template: it holds no conversations")
    if hasattr(config, "llm"):
        tokenizer, positions = _of_llm(config.llm)
        return _outlined(config, tokenizer, places_of(config), positions)
    if hasattr(config, "preset"):
        return _of_native(config)
    if getattr(config, "tokenizer", "") and hasattr(config, "encoders"):  # a tagger: one place for each medium
        from minigpt4o.models.llms.tokenizer_files import load_tokenizer

        return _outlined(config, load_tokenizer(config.tokenizer), dict.fromkeys(config.encoders, 1), None)
    raise ConfigError(f"model {chosen.name}: its tokenizer cannot be opened without its weights")


def config_of(chosen: Part) -> Any:
    """The values of a model's node in its own `Config`."""
    return registry.get("model", chosen.name).Config(**chosen.values)


def _outlined(config: Any, tokenizer: Any, slots: dict[str, int], positions: int | None) -> Outline:
    llm = SimpleNamespace(max_positions=positions)
    return Outline(tokenizer, conversation_of(config), slots, int(config.max_txt_len), config, llm)


# ---- joined from parts ----


def _of_llm(llm: Part) -> tuple[Any, int | None]:
    """(tokenizer, positions) of the language model's node."""
    from minigpt4o.models.llms.loading import hf_source
    from minigpt4o.models.llms.tokenizer_files import load_tokenizer

    values = vars(registry.get("llm", llm.name).Config(**llm.values))
    path, folder = values.get("path", ""), values.get("tokenizer", "")
    if not (path or folder):
        raise ConfigError("model.llm: it names neither `path` nor `tokenizer`")
    tokenizer = load_tokenizer(
        folder or hf_source(path), values.get("tokenizer_kind", "auto"), values.get("pad_token", "")
    )
    return tokenizer, _positions(path, values)


def _positions(path: str, values: Mapping[str, Any]) -> int | None:
    """How long a row the language model takes; None where its settings are not here."""
    from transformers import AutoConfig

    from minigpt4o.models.llms.loading import hf_source

    try:
        if path:
            settings = AutoConfig.from_pretrained(hf_source(path))
        else:
            settings = AutoConfig.for_model(values.get("model_type", ""), **values.get("options", {}))
    except (ConfigError, CheckpointError, OSError, ValueError, TypeError, KeyError):
        return None
    return getattr(settings.get_text_config(), "max_position_embeddings", None)


def places_of(config: Any) -> dict[str, int]:
    """Media kind -> tokens of its bridge, from shapes alone. Raises ConfigError."""
    found = {}
    for kind, part in config.encoders.items():
        if kind not in config.bridges:
            raise ConfigError(f"model.encoders.{kind} has no model.bridges.{kind}; an encoder needs its bridge")
        try:
            with torch.device("meta"):
                encoder = registry.build(_empty(part))
                known = {"from_dim": encoder.width, "from_tokens": encoder.tokens, "to_dim": _ANY_WIDTH}
                found[kind] = int(registry.build(_empty(config.bridges[kind]), **known).tokens)
        except _NO_NUMBERS as error:
            raise ConfigError(
                f"model.encoders.{kind}: how many tokens it gives cannot be told without its weights ({error})"
            ) from error
    return found


def _empty(part: Part) -> Part:
    """The same part without its weights."""
    return replace(part, values={**part.values, "weights": ""}) if part.values.get("weights") else part


# ---- Minigpt4o ----


def _of_native(config: Any) -> Outline:
    from transformers import AutoConfig

    from minigpt4o.models.native_open import native_config, native_source, native_tokenizer

    if config.path:
        import minigpt4o.models.minigpt4o.auto  # noqa: F401 - its names become known to transformers

        source = native_source(config.path)
        tokenizer = native_tokenizer(config.tokenizer or source)
        try:
            settings = AutoConfig.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.path: {source} cannot be read: {error}") from error
    else:
        tokenizer = native_tokenizer(config.tokenizer)
        settings = native_config(config.preset, config.options, tokenizer)
    slots = {"image": settings.vision_soft_tokens_per_image, "audio": settings.audio_soft_tokens_per_image}
    return _outlined(config, tokenizer, slots, int(settings.get_text_config().max_position_embeddings))

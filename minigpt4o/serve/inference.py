"""From a demo YAML to a conversation: the model with its weights, and the processors training used."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.encode import SampleEncoder
from minigpt4o.conversation.template import load_template
from minigpt4o.serve.chat import ChatSession
from minigpt4o.serve.limits import Limits

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings

PROCESSOR_FIELDS = {"image": "vis_processor", "audio": "audio_processor"}


def chat_config(settings: Settings) -> Any:
    """The values of the `run` node of a demo YAML. Raises ConfigError if the YAML is not for a chat."""
    if settings.run.name != "chat":
        raise ConfigError(
            f"run.runner is {settings.run.name!r}, so this YAML does not describe a chat; write `runner: chat`"
            " (an example: eval_configs/toy/demo.yaml)"
        )
    return registry.get("runner", "chat").Config(**settings.run.values)


def load_chat(settings: Settings) -> ChatSession:
    """A conversation with the model of a demo YAML; its `fresh()` gives further ones that share the model."""
    config = chat_config(settings)
    model = registry.build(settings.model)
    model.to(device_of(config.device)).eval()
    return open_chat(model, config)


def open_chat(model: Any, config: Any) -> ChatSession:
    """A conversation with a model that is already built; `config` is that of the runner `chat`."""
    processors = {}
    for kind, field in PROCESSOR_FIELDS.items():
        chosen = getattr(config, field)
        if chosen is None:
            continue
        if kind not in model.slots:
            raise ConfigError(f"run.{field} is set, but the model has no encoder for {kind} (model.encoders.{kind})")
        processors[kind] = registry.build(chosen)
    encoder = SampleEncoder(model.tokenizer, load_template(model.template), model.slots, processors, model.max_txt_len)
    return ChatSession(
        model,
        encoder,
        decoding=_pick(Decoding, config),
        limits=_pick(Limits, config),
        context=config.context,
        separator=config.separator,
        system=config.system,
    )


def device_of(name: str) -> Any:
    """The torch device a user's word means; `auto` is the first GPU if there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device is {name!r}, but no GPU can be used here; write `auto` or `cpu`")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"run.device: {name!r} is no device; write auto, cpu, cuda or cuda:1") from error


def _pick(kind: type, config: Any) -> Any:
    """A `Decoding` or `Limits` from the fields of the same names."""
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind)})

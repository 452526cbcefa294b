"""From a YAML to a conversation: the model with its weights, and the processors training used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.batch import Decoding
from minigpt4o.conversation.opening import open_encoder
from minigpt4o.models.generate import check_decoding
from minigpt4o.serve.chat import ChatSession, context_of
from minigpt4o.serve.engine import Engine, EngineSizes
from minigpt4o.serve.limits import Limits

if TYPE_CHECKING:
    from minigpt4o.common.config import Settings

PROCESSOR_FIELDS = {"image": "vis_processor", "audio": "audio_processor"}
# How MiniGPT-4's demos answer; a YAML with `runner: chat` says for itself.
DEMO = {"do_sample": True, "top_p": 0.9, "repetition_penalty": 1.05, "max_new_tokens": 300, "seed": 42}
DEMO_V2 = {**DEMO, "temperature": 0.6, "max_new_tokens": 500}


def chat_config(settings: Settings) -> Any:
    """The settings of a chat: the `run` node of a YAML with `runner: chat`, else those of MiniGPT-4's demos.

    A YAML that is not for a chat (the reference's eval_configs, a training, an evaluation) gives its model and the
    processors of its first data set that has any.
    """
    kind = registry.get("runner", "chat").Config
    if settings.run.name == "chat":
        return _usable(kind(**settings.run.values))
    values: dict[str, Any] = dict(DEMO_V2 if settings.model.values.get("template") == "minigpt_v2" else DEMO)
    for field in PROCESSOR_FIELDS.values():
        values[field] = _processor_of_data(settings, field)
    if settings.model.values.get("encoders", {}).get("image") and values["vis_processor"] is None:
        values["vis_processor"] = Part("processor", "blip2_image_eval")  # its size is the encoder's, see open_chat
    return _usable(kind(**values, device=settings.run.values.get("device", "auto")))


def _usable(config: Any) -> Any:
    """The config itself. Raises ConfigError, before a model is loaded, for what could answer nothing."""
    try:
        _pick(EngineSizes, config)
        check_decoding(_pick(Decoding, config))
    except ConfigError as error:
        raise ConfigError(f"run: {error}") from error
    return config


def _processor_of_data(settings: Settings, field: str) -> Part | None:
    """`eval` of the first data set that names a processor, or `train` where there is nothing else."""
    for spec in settings.datasets.values():
        chosen: dict[str, Part] = getattr(spec, field)
        if chosen:
            return chosen.get("eval") or chosen.get("train")
    return None


def load_chat(settings: Settings | str | Path, options: Sequence[str] = ()) -> ChatSession:
    """A conversation with the model of a YAML; its `fresh()` gives further ones that share the model.

    `settings` may also be a YAML file, or a checkpoint, run or job folder, with `options` (`a.b=c`) laid over it.
    """
    from minigpt4o.serve.opening import Source, build, source_of_path

    if isinstance(settings, str | Path):
        settings = source_of_path(settings, None, options, "").settings
    config = chat_config(settings)
    return open_chat(build(Source(settings), config.device), config)


def open_chat(model: Any, config: Any) -> ChatSession:
    """A conversation with a model that is already built; `config` is that of the runner `chat`."""
    processors = {}
    for kind, field in PROCESSOR_FIELDS.items():
        chosen = getattr(config, field)
        if chosen is None:
            continue
        if kind not in model.slots:
            raise ConfigError(f"run.{field} is set, but the model has no encoder for {kind} (model.encoders.{kind})")
        processors[kind] = _image_processor(chosen, model) if kind == "image" else registry.build(chosen)
    context = config.context or context_of(model)
    # No text is cut at max_txt_len, which is a limit of training: a chat has the whole context.
    encoder = open_encoder(model.tokenizer, model.conversation, model.slots, processors, context)
    return ChatSession(
        model,
        encoder,
        engine=Engine(model, encoder, **asdict(_pick(EngineSizes, config))),
        decoding=_pick(Decoding, config),
        limits=_pick(Limits, config),
        context=context,
        separator=config.separator,
        system=config.system,
    )


def _image_processor(chosen: Part, model: Any) -> Any:
    """The processor, in the encoder's size if it names none. Raises ConfigError if it names another."""
    from minigpt4o.serve.opening import image_size_of

    side = image_size_of(model)
    known = {field.name for field in registry.entry("processor", chosen.name).fields}
    if "image_size" not in known:
        return registry.build(chosen)
    processor = registry.build(replace(chosen, values={"image_size": side, **chosen.values}))
    if processor.config.image_size != side:
        raise ConfigError(
            f"vis_processor.image_size is {processor.config.image_size} but model.encoders.image takes pictures of "
            f"{side}; give both the same number"
        )
    return processor


def _pick(kind: type, config: Any) -> Any:
    """A `Decoding`, `Limits` or `EngineSizes` from the fields of the same names."""
    return kind(**{field.name: getattr(config, field.name) for field in fields(kind)})

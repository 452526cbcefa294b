"""An aligned model of any arrangement as a folder that opens with this package: `models/aligned_hf` does the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import Part, registry
from minigpt4o.conversation.jinja import SLOT
from minigpt4o.models.export.language import Language

MODULE = "minigpt4o_aligned"  # file of the folder that transformers runs
HOME = "minigpt4o.models.aligned_hf"
_CLASSES = {
    "AutoConfig": "AlignedConfig",
    "AutoModel": "AlignedForConditionalGeneration",
    "AutoModelForCausalLM": "AlignedForConditionalGeneration",
    "AutoModelForImageTextToText": "AlignedForConditionalGeneration",
    "AutoModelForMultimodalLM": "AlignedForConditionalGeneration",
}
AUTO_MAP = {auto: f"{MODULE}.{name}" for auto, name in _CLASSES.items()}
PROCESSOR_MAP = {"AutoProcessor": f"{MODULE}.AlignedProcessor"}
# The file itself: transformers tells a reader without the package to install it.
LOADER = f'''"""Opens the model of this folder. Its code is the package minigpt4o: pip install minigpt4o."""

from {HOME}.configuration_aligned import AlignedConfig
from {HOME}.modeling_aligned import AlignedForConditionalGeneration
from {HOME}.processing_aligned import AlignedProcessor

__all__ = ["AlignedConfig", "AlignedForConditionalGeneration", "AlignedProcessor"]
'''


def why_not(model: Any) -> str:
    """What keeps an aligned model from being written so; "" if nothing does."""
    return "" if model.encoders else "it takes neither pictures nor sounds: it is its language model"


def code_config(model: Any, language: Language, ids: Mapping[str, int], plugins: list[str]) -> Any:
    """`AlignedConfig`; `ids`: kind of medium -> the token that stands for one of its features."""
    from minigpt4o.models.aligned_hf.configuration_aligned import AlignedConfig

    config = model.config
    return AlignedConfig(
        text_config=language.config.to_dict(),
        encoders={kind: _node(part, model.encoders[kind]) for kind, part in config.encoders.items()},
        bridges={kind: _node(part, model.bridges[kind]) for kind, part in config.bridges.items()},
        feature_norm=bool(model.norms),
        image_token_id=ids.get("image"),
        audio_token_id=ids.get("audio"),
        plugins=plugins or None,
        auto_map=AUTO_MAP,
    )


def code_tensors(model: Any, language: Language) -> dict[str, Tensor]:
    """Every tensor under the exported class's name."""
    found: dict[str, Tensor] = {}
    for part in ("encoders", "norms", "bridges"):
        module = getattr(model, part)
        held = {**module.state_dict(), **dict(module.named_buffers())}  # with buffers that are usually in no file
        found |= {f"{part}.{name}": tensor.detach() for name, tensor in held.items()}
    return found | {f"language_model.{name}": tensor for name, tensor in language.tensors.items()}


def code_processor(model: Any, tokenizer: Any, media: Mapping[str, Part], chat_template: str) -> Any:
    """`AlignedProcessor` with the processors `media` of an evaluation."""
    from minigpt4o.models.aligned_hf.processing_aligned import AlignedProcessor

    return AlignedProcessor(
        tokenizer,
        chat_template=chat_template,
        media={kind: _node(part, registry.build(part)) for kind, part in media.items()},
        slots=dict(model.slots),
    )


def marks_of(model: Any) -> list[str]:
    """Words for the places of this model's media."""
    return [SLOT[kind] for kind in model.slots]


def _node(part: Part, built: Any) -> dict[str, Any]:
    """A part as it stands in a YAML, without where its weights came from: that is a place of one machine.

    A part that is told by a folder has `without_folder()`: the values that say the same. Raises ConfigError where a
    value still names a file or folder.
    """
    values = {**part.values, **(built.without_folder() if hasattr(built, "without_folder") else {})}
    values = {key: _plain(value) for key, value in values.items() if key not in ("weights", "weights_prefix")}
    for key, value in values.items():
        if isinstance(value, str) and "/" in value and Path(value).exists():
            raise ConfigError(
                f"{part.kind} {part.name}: its {key} is {value}, which an export cannot hold; give the class a method "
                "without_folder() that returns values without it"
            )
    return {"name": part.name, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return {"name": value.name, **{key: _plain(inner) for key, inner in value.values.items()}}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value

"""Join frozen vision, audio and language models through a small trained bridge; teach, measure, talk to the result."""

from __future__ import annotations

import importlib
from typing import Any

from minigpt4o.models.minigpt4o import auto as _auto

__version__ = "0.1.0"

_HOME = "minigpt4o.models.minigpt4o"
# Name -> module that holds it; imported when first asked for, so that `import minigpt4o` stays light.
_LAZY = {
    "load_settings": "minigpt4o.common.config",
    "Settings": "minigpt4o.common.config",
    "registry": "minigpt4o.common.registry",
    "Part": "minigpt4o.common.registry",
    "part": "minigpt4o.common.registry",
    "Minigpt4oError": "minigpt4o.common.errors",
    # mmpretrain's way in
    "inference_model": "minigpt4o.serve.inferencer",
    "get_model": "minigpt4o.serve.inferencer",
    "list_models": "minigpt4o.serve.zoo",
    "forget_models": "minigpt4o.serve.inferencer",
    "Inferencer": "minigpt4o.serve.inferencer",
    # a conversation
    "ChatSession": "minigpt4o.serve.chat",
    "load_chat": "minigpt4o.serve.inference",
    # LAVIS's way in
    "load_model_and_preprocess": "minigpt4o.serve.lavis",
    "load_model": "minigpt4o.serve.lavis",
    "load_preprocess": "minigpt4o.serve.lavis",
    "model_zoo": "minigpt4o.serve.lavis",
    # the self-contained model, transformers' way in
    "Minigpt4oAudioConfig": f"{_HOME}.configuration_minigpt4o",
    "Minigpt4oConfig": f"{_HOME}.configuration_minigpt4o",
    "Minigpt4oTextConfig": f"{_HOME}.configuration_minigpt4o",
    "Minigpt4oVisionConfig": f"{_HOME}.configuration_minigpt4o",
    "Minigpt4oAudioEncoder": f"{_HOME}.modeling_audio",
    "Minigpt4oVisionEncoder": f"{_HOME}.modeling_vision",
    "Minigpt4oTextModel": f"{_HOME}.modeling_text",
    "Minigpt4oForCausalLM": f"{_HOME}.modeling_text",
    "Minigpt4oModel": f"{_HOME}.modeling_minigpt4o",
    "Minigpt4oForConditionalGeneration": f"{_HOME}.modeling_minigpt4o",
    "Minigpt4oPreTrainedModel": f"{_HOME}.modeling_base",
    "Minigpt4oAudioFeatureExtractor": f"{_HOME}.feature_extraction_minigpt4o",
    "Minigpt4oImageProcessor": f"{_HOME}.image_processing_minigpt4o",
    "Minigpt4oProcessor": f"{_HOME}.processing_minigpt4o",
}

__all__ = [
    "ChatSession",
    "Inferencer",
    "Minigpt4oAudioConfig",
    "Minigpt4oAudioEncoder",
    "Minigpt4oAudioFeatureExtractor",
    "Minigpt4oConfig",
    "Minigpt4oError",
    "Minigpt4oForCausalLM",
    "Minigpt4oForConditionalGeneration",
    "Minigpt4oImageProcessor",
    "Minigpt4oModel",
    "Minigpt4oPreTrainedModel",
    "Minigpt4oProcessor",
    "Minigpt4oTextConfig",
    "Minigpt4oTextModel",
    "Minigpt4oVisionConfig",
    "Minigpt4oVisionEncoder",
    "Part",
    "Settings",
    "__version__",
    "forget_models",
    "get_model",
    "inference_model",
    "list_models",
    "load_chat",
    "load_model",
    "load_model_and_preprocess",
    "load_preprocess",
    "load_settings",
    "model_zoo",
    "part",
    "registry",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


_auto.install()  # the Auto classes of transformers know Minigpt4o from here on; loads nothing

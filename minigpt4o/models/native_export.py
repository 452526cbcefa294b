"""Write a trained Minigpt4o as transformers wants it: weights with adapters merged, processor, tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt4o.models.native_open import EXPORT


def export(model: Any, folder: Path) -> Path:
    """`folder`/minigpt4o, which `AutoModelForImageTextToText` and `AutoProcessor` open after `import minigpt4o`."""
    out = folder / EXPORT
    model.whole.save_pretrained(out, state_dict=merged_tensors(model.whole, model.compute_dtype))
    processor_of(model).save_pretrained(out)
    return out


def merged_tensors(whole: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of the model in one number format, under its own names, adapters added to the maps they sit on."""
    deltas = {}
    for name, module in whole.named_modules():
        for adapter in getattr(module, "lora_A", {}):
            deltas[f"{name}.weight"] = module.get_delta_weight(adapter).float()
    found = {}
    for name, tensor in whole.state_dict().items():
        if ".lora_" in name:
            continue
        name, tensor = name.replace(".base_layer.", "."), tensor.detach()
        if name in deltas:
            tensor = tensor.float() + deltas[name].to(tensor.device)
        found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return found


def processor_of(model: Any) -> Any:
    """The processor of transformers that gives the model what our own processors give it."""
    from minigpt4o.models.minigpt4o.feature_extraction_minigpt4o import Minigpt4oAudioFeatureExtractor
    from minigpt4o.models.minigpt4o.image_processing_minigpt4o import Minigpt4oImageProcessor
    from minigpt4o.models.minigpt4o.processing_minigpt4o import Minigpt4oProcessor

    side, config = model.config.image_size, model.whole.config
    return Minigpt4oProcessor(
        feature_extractor=Minigpt4oAudioFeatureExtractor(feature_size=config.audio_config.input_feat_size),
        image_processor=Minigpt4oImageProcessor(size={"height": side, "width": side}),
        tokenizer=model.tokenizer,
        audio_seq_length=config.audio_soft_tokens_per_image,
        image_seq_length=config.vision_soft_tokens_per_image,
    )

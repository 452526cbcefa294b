"""A vision model of transformers, a bridge of one or two maps and a causal LM as transformers' LLaVA."""

# N pictures, P features of one, D width of the language model, E width of the encoder

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from minigpt4o.models.export.language import Language

_NONE = object()  # a value that was not there


def why_not(model: Any) -> str:
    """What keeps this model from being a LLaVA of transformers; "" if nothing does."""
    kinds = sorted(model.encoders)
    if kinds != ["image"]:
        return f"LLaVA has one encoder, for pictures; this model has {', '.join(kinds) or 'none'}"
    encoder, bridge = model.encoders["image"], model.bridges["image"]
    if type(encoder).__name__ != "TransformersVision":
        return f"its picture encoder is {type(encoder).__name__}, LLaVA's is of transformers (transformers_vision)"
    reasons = (
        _other_features(encoder, bridge),
        _other_bridge(bridge, model.llm.width, model),
        _other_language(model.llm),
    )
    return next((reason for reason in reasons if reason), "")


def _other_features(encoder: Any, bridge: Any) -> str:
    """Why the features are not those that LLaVA would take."""
    patch = getattr(encoder.core.config, "patch_size", None)
    if not isinstance(patch, int):
        return "its picture encoder's configuration names no patch_size, by which LLaVA counts places"
    if not _rebuilt(encoder.core):
        return f"its picture encoder is a {type(encoder.core).__name__}, which transformers does not build alone"
    if _left_out(encoder, bridge) > 1:
        return f"it leaves out {_left_out(encoder, bridge)} leading features, LLaVA at most one"
    if encoder.layer == -1 and tie_of(encoder.core, encoder.example()) is None:
        return "its features are the state behind its encoder's last norm, LLaVA takes the one before it"
    if encoder.tokens + encoder.skip < (encoder.image_size // patch) ** 2:
        return "its encoder gives fewer features than its picture has patches"
    return ""


def _other_bridge(bridge: Any, width: int, model: Any) -> str:
    """Why the bridge is not LLaVA's projector: two maps of the language model's width with GELU between them."""
    if "image" in model.norms:
        return "it has a norm behind the picture encoder (model.feature_norm), LLaVA has none"
    name = type(bridge).__name__
    if name == "Mlp":
        maps = _maps(bridge)
        if len(maps) != 2 or maps[0].out_features != width:
            told = ", ".join(str(m.out_features) for m in maps)
            return f"its bridge has maps of the widths {told}; LLaVA's has {width}, {width}"
        return ""
    return "" if name == "Linear" else f"its bridge is {name}, LLaVA's is Linear or Mlp (linear, mlp)"


def _other_language(llm: Any) -> str:
    """Why LLaVA would give other logits."""
    if not _rebuilt(llm.model.base_model):
        return f"its language model is a {type(llm.model).__name__}, which LLaVA does not hold"
    if llm.head.bias is not None:
        return "its language model's output map has a bias, LLaVA's has none"
    if llm.head.scale != 1.0 or llm.head.softcap:
        return "its language model scales or caps its logits, LLaVA does not"
    return ""


def _rebuilt(module: Any) -> bool:
    """Whether transformers makes the same class of its configuration."""
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            return type(AutoModel.from_config(module.config)) is type(module)
    except ValueError:  # a configuration that AutoModel does not know
        return False


def llava_config(model: Any, language: Language, image_token_id: int) -> Any:
    """`LlavaConfig` of the same sizes."""
    from transformers import LlavaConfig

    encoder, bridge = model.encoders["image"], model.bridges["image"]
    vision = copy.deepcopy(encoder.core.config)
    vision._name_or_path = ""  # a folder of this machine
    if encoder.layer == -1 and tie_of(encoder.core, encoder.example()):
        vision.tie_last_hidden_states = True
    text = copy.deepcopy(language.config)
    if text.tie_word_embeddings and not _tied_by_name(language):
        text.tie_word_embeddings = False
    maps = _maps(bridge)
    return LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=image_token_id,
        image_seq_length=bridge.tokens,
        # A single map is LLaVA's two with nothing between them, the second one doing nothing.
        projector_hidden_act="gelu" if len(maps) == 2 else "linear",
        vision_feature_select_strategy=strategy_of(model),
        vision_feature_layer=encoder.layer,
        multimodal_projector_bias=maps[0].bias is not None,
        tie_word_embeddings=text.tie_word_embeddings,
    )


@torch.no_grad()
def tie_of(core: Any, pictures: Tensor) -> bool | None:
    """What a picture encoder's `tie_last_hidden_states` has to be for its last state to be the one behind its norm.

    False: it is so anyway (CLIP has no such norm); None: it cannot be had (DINOv2). `pictures`: (1, 3, S, S).
    """
    held = vars(core.config).get("tie_last_hidden_states", _NONE)
    try:
        for tie in (False, True):
            core.config.tie_last_hidden_states = tie
            out = core(**{core.main_input_name: pictures.to(core.device)}, output_hidden_states=True)
            if torch.equal(out.last_hidden_state, out.hidden_states[-1]):
                return tie
    finally:
        core.config.tie_last_hidden_states = held
        if held is _NONE:
            del core.config.tie_last_hidden_states
    return None


def strategy_of(model: Any) -> str:
    """`default`: the first feature is left out; `full`: none is."""
    return "default" if _left_out(model.encoders["image"], model.bridges["image"]) else "full"


def llava_tensors(model: Any, language: Language) -> dict[str, Tensor]:
    """Every tensor under LLaVA's name."""
    found = {f"model.vision_tower.{name}": t for name, t in model.encoders["image"].core.state_dict().items()}
    maps = _maps(model.bridges["image"])
    weights = [m.weight for m in maps]
    biases = [m.bias for m in maps]
    if len(maps) == 1:
        width = weights[0].shape[0]
        weights.append(torch.eye(width))
        biases.append(None if biases[0] is None else torch.zeros(width))
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True), 1):
        found[f"model.multi_modal_projector.linear_{number}.weight"] = weight.detach()
        if bias is not None:
            found[f"model.multi_modal_projector.linear_{number}.bias"] = bias.detach()
    return found | _language_tensors(language)


def _language_tensors(language: Language) -> dict[str, Tensor]:
    """LLaVA holds the language model without its head, and a head of its own."""
    inside = f"{language.base}."
    found = {
        f"model.language_model.{name.removeprefix(inside)}": tensor
        for name, tensor in language.tensors.items()
        if name != language.head
    }
    if language.head in language.tensors:
        found["lm_head.weight"] = language.tensors[language.head]
    elif not _tied_by_name(language):
        found["lm_head.weight"] = language.tensors[language.table].clone()
    return found


def _tied_by_name(language: Language) -> bool:
    """Whether transformers finds the embeddings that LLaVA's head is tied to."""
    return language.table == f"{language.base}.embed_tokens.weight"


def _maps(bridge: Any) -> list[Any]:
    if hasattr(bridge, "proj"):
        return [bridge.proj]
    return [layer for layer in bridge.layers if hasattr(layer, "weight")]


def _left_out(encoder: Any, bridge: Any) -> int:
    """Leading features of the encoder that reach no place of the text."""
    return encoder.skip + bridge.first

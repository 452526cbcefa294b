"""The models that `minigpt4o_speed.py` compares, equal in size and weights, and what each of them is made to do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration
from transformers.models.gemma3n.feature_extraction_gemma3n import Gemma3nAudioFeatureExtractor

from minigpt4o import (
    Minigpt4oAudioFeatureExtractor,
    Minigpt4oConfig,
    Minigpt4oForConditionalGeneration,
)

# size -> rows and tokens of a batch, prompt and new tokens of generation, pixels of a side, frames of a sound
SHAPES = {
    "tiny": (4, 128, 64, 32, 128, 400),
    "medium": (2, 256, 128, 32, 128, 400),
    "e2b": (1, 1024, 1024, 64, 768, 997),
}
VOCABULARY = {"tiny": (2_000, 16), "medium": (16_000, 16), "e2b": (200_000, 128)}
MEDIUM = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "sliding_window": 128,
    "num_kv_shared_layers": 5,
    "hidden_size_per_layer_input": 64,
    "altup_num_inputs": 4,
    "laurel_rank": 32,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
    "activation_sparsity_pattern": [0.95] * 4 + [0.0] * 6,
}
MEDIUM_AUDIO = {"hidden_size": 256, "conf_num_hidden_layers": 4, "sscp_conv_channel_size": (64, 32)}
APART = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
SECONDS, RATE = 10, 16_000

Act = Callable[[], Any]


@dataclass
class Case:
    """Two ways to do the same, and how far apart their outcomes are."""

    name: str
    ours: Act
    theirs: Act
    apart: float
    limit: float
    tokens: int = 0  # made or read by one run


def values(size: str) -> dict[str, Any]:
    """The configuration of a size as plain values, equal for both."""
    config = Minigpt4oConfig.preset("e2b" if size == "e2b" else "tiny", *VOCABULARY[size])
    values = copy.deepcopy(config.to_dict())
    if size == "medium":
        values["text_config"] |= MEDIUM
        values["text_config"].pop("rope_parameters", None)
        values["audio_config"] |= MEDIUM_AUDIO
    for key in ("text_config", "vision_config", "audio_config"):
        values[key].pop("model_type", None)
    values.pop("model_type", None)
    return values


def decoded(values: dict[str, Any]) -> dict[str, Any]:
    """The same with the picture tower's blocks as timm's own builder wants them."""
    from timm.models._efficientnet_builder import decode_arch_def

    values = copy.deepcopy(values)
    arguments = values["vision_config"].get("model_args")
    if arguments:
        arguments["block_args"] = decode_arch_def(arguments["block_args"])
    return values


def models(size: str, device: torch.device, dtype: torch.dtype, attention: str) -> tuple[Any, Any]:
    """Ours and theirs with the very same random weights."""
    facts, options = values(size), {"attn_implementation": attention, "dtype": dtype}
    with device:
        theirs = Gemma3nForConditionalGeneration._from_config(Gemma3nConfig(**decoded(facts)), **options)
        ours = Minigpt4oForConditionalGeneration._from_config(Minigpt4oConfig(**facts), **options)
    scatter(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)  # the same memory
    ours.tie_weights()
    return ours.eval(), theirs.eval()


@torch.no_grad()
def scatter(model: nn.Module) -> None:
    """Weights that make every part count: fresh ones are zeros and ones in many places."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.normal_(mean=1.0 if "norm" in name or name.endswith(("bn.weight", "gamma")) else 0.0, std=0.1)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative; of ids the share that differs."""
    if not theirs.is_floating_point():
        return float((ours != theirs).float().mean())
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm().clamp(min=1e-30))


def forward(model: Any, **inputs: Any) -> Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def backward(model: Any, parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> Tensor:
    """One training pass; the gradients of a few parameters, to compare."""
    model.zero_grad(set_to_none=True)
    loss().backward()
    return torch.cat([p.grad.flatten()[:4096].float() for p in parameters if p.grad is not None])


def pair(name: str, made: tuple[Any, Any], act: Callable[[Any], Tensor], limit: float, tokens: int = 0) -> Case:
    """The same act on both models."""
    ours, theirs = made
    apart = distance(act(ours), act(theirs))
    return Case(name, lambda: act(ours), lambda: act(theirs), apart, limit, tokens)


def text_cases(made: tuple[Any, Any], size: str, limit: float) -> Iterator[Case]:
    rows, length, prompt, new, *_ = SHAPES[size]
    device, ids_end = made[0].device, VOCABULARY[size][0] - 2 * VOCABULARY[size][1]
    ids = torch.randint(8, ids_end, (rows, length), device=device)
    yield pair("text forward", made, lambda m: forward(m, input_ids=ids), limit, ids.numel())

    def train(model: Any) -> Tensor:
        model.train()
        text = model.model.language_model
        some = [text.layers[0].mlp.up_proj.weight, text.layers[-1].self_attn.q_proj.weight]
        found = backward(model, some, lambda: model(input_ids=ids, labels=ids).loss)
        model.eval()
        return found

    yield pair("text forward + backward", made, train, 10 * limit, ids.numel())
    for model in made:
        model.zero_grad(set_to_none=True)
    start = ids[:1, :prompt] if prompt <= length else ids[:1]
    yield pair(
        "prefill (cache filled)",
        made,
        lambda m: forward(m, input_ids=start, use_cache=True, logits_to_keep=1),
        limit,
        start.numel(),
    )
    options = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new}

    def generate(model: Any, ids: Tensor) -> Tensor:
        return model.generate(ids, attention_mask=torch.ones_like(ids), **options)

    wrong = 0.0 if made[0].dtype == torch.float32 else 1.0  # rounding may turn a close choice
    yield pair("generate, 1 row", made, lambda m: generate(m, start[:, :8]), wrong, new)
    four = torch.cat([start[:, :8]] * 4)
    yield pair("generate, 4 rows", made, lambda m: generate(m, four), wrong, 4 * new)


def media_cases(made: tuple[Any, Any], size: str, limit: float) -> Iterator[Case]:
    *_, side, frames = SHAPES[size]
    config, device, dtype = made[0].config, made[0].device, made[0].dtype
    mel = torch.randn(2, frames, config.audio_config.input_feat_size, device=device, dtype=dtype)
    padding = torch.zeros(2, frames, dtype=torch.bool, device=device)
    padding[1, frames // 2 :] = True

    def hear(model: Any) -> Tensor:
        outputs = model.model.audio_tower(mel, padding, return_dict=True)
        return outputs[0].masked_fill(outputs[1].unsqueeze(-1), 0.0)

    def hear_only(model: Any) -> Tensor:
        with torch.inference_mode():
            return hear(model)

    def learn(model: Any) -> Tensor:
        some = [model.model.audio_tower.conformer[0].ffw_layer_start.ffw_layer_1.weight]
        return backward(model.model.audio_tower, some, lambda: hear(model).float().square().mean())

    yield pair("audio tower forward", made, hear_only, limit)
    yield pair("audio tower forward + backward", made, learn, 10 * limit)
    for model in made:
        model.zero_grad(set_to_none=True)
    picture = torch.rand(1, 3, side, side, device=device, dtype=dtype)
    slots = [config.image_token_id] * config.vision_soft_tokens_per_image
    sound = [config.audio_token_id] * config.audio_soft_tokens_per_image
    words = list(range(8, 40))
    ids = torch.tensor([[*words, config.boi_token_id, *slots, config.eoi_token_id, *words]], device=device)
    yield pair("picture + text forward", made, lambda m: forward(m, input_ids=ids, pixel_values=picture), limit)
    both = torch.cat([ids, torch.tensor([[config.boa_token_id, *sound, config.eoa_token_id]], device=device)], 1)
    heard = {"input_features": mel[:1], "input_features_mask": ~padding[:1]}
    inputs = {"input_ids": both, "pixel_values": picture, **heard}
    yield pair("picture + sound + text forward", made, lambda m: forward(m, **inputs), limit)


def feature_cases() -> Iterator[Case]:
    """Audio features of ten seconds, alone and eight at once; always on the CPU."""
    ours, theirs = Minigpt4oAudioFeatureExtractor(), Gemma3nAudioFeatureExtractor()
    waves = np.random.default_rng(0).standard_normal((8, SECONDS * RATE)).astype(np.float32) * 0.1
    for clips in (1, 8):
        given = list(waves[:clips])

        def hear(extractor: Any, given: list[np.ndarray] = given) -> Tensor:
            return torch.as_tensor(np.asarray(extractor(given, return_tensors="pt").input_features))

        yield pair(f"audio features, {clips} x {SECONDS} s", (ours, theirs), hear, 1e-4)

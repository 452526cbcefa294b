"""Which parameters decay: ours by the type of module, the reference's by what stands in its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minigpt4o.common.registry import Part, registry
from minigpt4o.runners.optim import named_groups

Make = Callable[..., Any]
EVA = Part("encoder", "eva_vit", {"image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "heads": 2})
QFORMER = Part("bridge", "qformer", {"queries": 2, "width": 16, "depth": 1, "heads": 2, "ffn": 24})
GROUPED = Part("bridge", "grouped", {"group": 4, "drop_cls": True})
NO_LORA = {"lora_r": 0}


def groups_of(make_settings: Make, profile: str, **model: Any) -> list[dict[str, Any]]:
    values = {"encoders": {"image": EVA}, "bridges": {"image": QFORMER}, "feature_norm": True, **model}
    built = registry.build(make_settings(model=values).model)
    return named_groups(built, built.trained_parameters(), 0.05, {}, profile)


@pytest.mark.parametrize("profile", ["compat", "default"])
@pytest.mark.parametrize("bridge", [QFORMER, GROUPED])
def test_of_minigpt4_only_the_projection_s_bias_does_not_decay(make_settings: Make, profile: str, bridge: Part) -> None:
    groups = groups_of(make_settings, profile, bridges={"image": bridge}, train=["bridges.image.proj"], **NO_LORA)
    assert [(g["name"], g["names"], g["weight_decay"]) for g in groups] == [
        ("decay", ["bridges.image.proj.weight"], 0.05),
        ("no_decay", ["bridges.image.proj.bias"], 0.0),
    ]


@pytest.mark.parametrize("profile", ["compat", "default"])
def test_of_minigpt_v2_all_adapters_decay(make_settings: Make, profile: str) -> None:
    decay, plain = groups_of(make_settings, profile, bridges={"image": GROUPED}, train=["bridges.image", "lora"])
    layer = "llm.model.model.layers.0.self_attn"
    adapters = [f"{layer}.{m}_proj.lora_{x}.default.weight" for m in "qv" for x in "AB"]
    assert decay["names"] == [*adapters, "bridges.image.proj.weight"]  # in the model's order
    assert plain["names"] == ["bridges.image.proj.bias"]


def test_of_a_trained_q_former_and_vit_vectors_do_not_decay_but_tokens_and_positions_do(make_settings: Make) -> None:
    train = ["bridges", "encoders.image", "norms.image"]
    for profile in ("compat", "default"):
        decay, plain = groups_of(make_settings, profile, train=train, **NO_LORA)
        assert all(p.ndim < 2 for p in plain["params"]), profile
        assert all(p.ndim >= 2 for p in decay["params"]), profile
        vit = "encoders.image.vit."
        tokens = {"bridges.image.query_tokens", vit + "pos_embed", vit + "cls_token"}
        assert tokens < set(decay["names"]), profile
        norm = "bridges.image.qformer.encoder.layer.0.attention.output.LayerNorm.weight"
        assert {"norms.image.weight", vit + "blocks.0.attn.q_bias", norm} < set(plain["names"]), profile


def test_compat_looks_for_its_words_in_the_official_name(make_settings: Make) -> None:
    """A matrix below ln_vision would not decay in the reference; its own name, norms.image, does not show why."""
    import torch

    trained = {"norms.image.extra": torch.nn.Parameter(torch.zeros(2, 2))}
    model = torch.nn.Module()
    model.norms = torch.nn.ModuleDict({"image": torch.nn.Module()})
    model.norms["image"].register_parameter("extra", trained["norms.image.extra"])
    assert [g["name"] for g in named_groups(model, trained, 0.1, {}, "compat")] == ["no_decay"]
    assert [g["name"] for g in named_groups(model, trained, 0.1, {}, "default")] == ["decay"]

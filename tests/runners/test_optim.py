"""Who decays, who does not, and whose learning rate is scaled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from minigpt4o.common.errors import ConfigError
from minigpt4o.runners.optim import build_adamw, named_groups, set_lr


def tiny() -> nn.Module:
    model = nn.Module()
    model.bridges = nn.ModuleDict({"image": nn.Linear(3, 2)})
    model.norm = nn.LayerNorm(2)
    model.llm = nn.Sequential(nn.Embedding(5, 2), nn.BatchNorm1d(2))
    return model


def group_of(model: nn.Module, **multipliers: float) -> dict[str, str]:
    groups = named_groups(
        model, dict(model.named_parameters()), 0.1, {k.replace("_", "."): v for k, v in multipliers.items()}
    )
    return {name: group["name"] for group in groups for name in group["names"]}


def test_matrices_decay_and_vectors_biases_and_norms_do_not() -> None:
    named = group_of(tiny())
    assert named["bridges.image.weight"] == "decay"
    assert named["llm.0.weight"] == "decay"
    assert {named[n] for n in ("bridges.image.bias", "norm.weight", "norm.bias", "llm.1.weight")} == {"no_decay"}


def test_every_trained_parameter_is_in_exactly_one_group() -> None:
    model = tiny()
    groups = named_groups(model, dict(model.named_parameters()), 0.1, {"bridges": 2.0})
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())


def test_the_longest_prefix_scales_the_learning_rate() -> None:
    model = tiny()
    groups = named_groups(model, dict(model.named_parameters()), 0.1, {"bridges": 2.0, "bridges.image": 3.0})
    optimizer = build_adamw(groups, 1.0, 0.99)
    set_lr(optimizer, 0.5)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates["bridges.image.weight"] == 1.5
    assert rates["llm.0.weight"] == 0.5


def test_a_multiplier_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="bridge"):
        group_of(tiny(), bridge=2.0)


def test_training_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.train"):
        named_groups(tiny(), {}, 0.1, {})


def test_only_decaying_parameters_shrink_without_gradients() -> None:
    model = tiny()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = build_adamw(named_groups(model, dict(model.named_parameters()), 0.5, {}), 0.1, 0.999)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = dict(model.named_parameters())
    assert torch.allclose(after["llm.0.weight"], before["llm.0.weight"] * 0.95)
    assert torch.equal(after["norm.weight"], before["norm.weight"])

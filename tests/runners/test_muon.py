"""Muon: steps of one size in every direction, for hidden matrices only, and exact when a run is stopped and resumed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_world import bytes_of, lines, stopped_at, train
from torch import nn

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.files import find_checkpoint
from minigpt4o.common.registry import Part
from minigpt4o.runners.build import build_model
from minigpt4o.runners.engine_deepspeed import check
from minigpt4o.runners.muon import RMS, MuonAdamW, hidden_matrices, orthogonal, split_groups
from minigpt4o.runners.optim import build_optimizer, named_groups

Make = Callable[..., Any]


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (40, 40)], ids=["wide", "tall", "square"])
def test_every_direction_gets_a_step_of_about_the_same_size(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=draw))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=draw))
    lopsided = left @ torch.diag(torch.logspace(0, -1.7, min(shape))) @ right.mT  # strongest : weakest = 50 : 1
    found = orthogonal(torch.stack([lopsided, 1e-3 * lopsided]))
    assert found.shape == (2, *shape) and found.dtype == lopsided.dtype
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    assert torch.allclose(found[0], found[1], atol=1e-3)  # how large the gradient is does not matter
    nearest = left @ right.mT
    assert float((found[0] * nearest).sum() / (found[0].norm() * nearest.norm())) > 0.97


def test_a_convolution_takes_the_step_of_its_matrix_and_the_first_one_stays_with_adamw() -> None:
    class Eyes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels = nn.Conv2d(3, 8, 3)
            self.full, self.depthwise = nn.Conv2d(8, 6, 3), nn.Conv2d(8, 8, 3, groups=8)

    model = Eyes()
    assert hidden_matrices(model) == {"full.weight"}
    flat = nn.Parameter(model.full.weight.detach().flatten(1).clone())
    gradient = torch.randn(6, 72, generator=torch.Generator().manual_seed(0))
    for parameter in (model.full.weight, flat):
        parameter.grad = gradient.view_as(parameter).clone()
        group = {"params": [parameter], "muon": True, "weight_decay": 0.1}
        MuonAdamW([group], lr=0.02, betas=(0.9, 0.95), eps=1e-8).step()
    assert torch.equal(model.full.weight.flatten(1), flat)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(1, 4, 6)).any()


def test_embeddings_heads_and_vectors_are_left_to_adamw(make_settings: Make) -> None:
    model = build_model(make_settings(model={"train": ["bridges", "llm", "encoders"], "lora_r": 0}))
    hidden = hidden_matrices(model)
    assert {"bridges.image.proj.weight"} < hidden
    assert any(name.endswith("q_proj.weight") for name in hidden)
    assert any(name.startswith("encoders.image.") for name in hidden)
    assert not [name for name in hidden if "embed" in name or "lm_head" in name or "norm" in name]
    names = dict(model.named_parameters())
    assert all(names[name].ndim == 2 for name in hidden)


def test_the_map_of_a_tagger_to_the_vocabulary_is_no_hidden_matrix() -> None:
    model = nn.Module()
    model.heads = nn.ModuleDict({"image": nn.Linear(4, 30)})
    model.encoder = nn.Sequential(nn.Linear(4, 4), nn.Embedding(5, 4))
    assert hidden_matrices(model) == {"encoder.0.weight"}


def test_every_parameter_is_in_one_group_and_keeps_its_decay_and_scale() -> None:
    model = nn.Module()
    model.bridge = nn.Linear(3, 2)
    model.table = nn.Embedding(5, 2)
    groups = named_groups(model, dict(model.named_parameters()), 0.1, {"bridge": 2.0})
    split = split_groups(groups, hidden_matrices(model))
    assert sorted(n for g in split for n in g["names"]) == ["bridge.bias", "bridge.weight", "table.weight"]
    kept = {n: (g["muon"], g["weight_decay"], g["lr_scale"]) for g in split for n in g["names"]}
    assert kept == {
        "bridge.weight": (True, 0.1, 2.0),
        "bridge.bias": (False, 0.0, 2.0),
        "table.weight": (False, 0.1, 1.0),
    }


def test_a_step_turns_hidden_matrices_and_is_adamw_s_for_the_rest() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6))
    twin = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6))
    twin.load_state_dict(model.state_dict())
    for kind, one in (("muon", model), ("adamw", twin)):
        groups = named_groups(one, dict(one.named_parameters()), 0.0, {})
        optimizer = build_optimizer(kind, groups, one, 0.01, 0.99)
        assert isinstance(optimizer, MuonAdamW) == (kind == "muon")
        before = one[0].weight.detach().clone()
        one(torch.ones(2, 8)).pow(3).sum().backward()
        optimizer.step()
        moved = one[0].weight.detach() - before
        if kind == "muon":
            assert float(moved.pow(2).mean().sqrt()) < 0.01 * RMS * 1.3
            assert float(torch.linalg.svdvals(moved)[0]) == pytest.approx(0.01 * RMS * 8**0.5, rel=0.35)
            assert len(optimizer.param_groups) == 2  # all of them are there again after the step
    rest = [name for name, _ in model.named_parameters() if name != "0.weight"]
    pairs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in rest)
    assert not torch.equal(pairs[0]["0.weight"], pairs[1]["0.weight"])


def test_stopped_and_continued_with_muon_equals_never_stopped(make_settings: Make) -> None:
    values = {"max_steps": 6, "valid_freq": 3, "optimizer": "muon"}
    peace = train(make_settings(job_name="peace", **values))
    settings = make_settings(job_name="stopped", resume_ckpt_path="auto", **values)
    stopped_at(settings, 2)
    stopped_at(settings, 4, signal.SIGUSR1)
    assert bytes_of(train(settings)) == bytes_of(peace)
    plain = train(make_settings(job_name="adamw", max_steps=6, valid_freq=3))
    assert [r["loss_hex"] for r in lines(plain)] != [r["loss_hex"] for r in lines(peace)]


def test_a_checkpoint_of_the_other_optimizer_is_refused(make_settings: Make) -> None:
    run = train(make_settings(max_steps=2, optimizer="muon"))
    with pytest.raises(CheckpointError, match=r"run\.optimizer: muon in the checkpoint, adamw now"):
        train(make_settings(max_steps=4, resume_ckpt_path=str(find_checkpoint(run))))


def test_deepspeed_refuses_muon_and_says_what_to_do(make_settings: Make) -> None:
    with pytest.raises(ConfigError, match=r"run\.optimizer.*muon.*run\.engine: torch"):
        check(1, bf16=False, optimizer="muon")
    settings = make_settings(optimizer="muon", engine=Part("engine", "deepspeed"))
    with pytest.raises(ConfigError, match="deepspeed takes adamw, not muon"):
        train(settings)


def test_a_run_with_muon_learns_its_captions(make_settings: Make) -> None:
    whole = {"train": ["bridges", "llm"], "lora_r": 0}
    settings = make_settings(model=whole, optimizer="muon", max_steps=30, save_freq=30, init_lr=0.05, valid_batches=0)
    rows = lines(train(settings))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]

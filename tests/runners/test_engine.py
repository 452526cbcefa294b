"""An engine alone, with a model of a few numbers: unused parameters, buffers, and state that moves between engines."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from minigpt4o.common.distributed import World
from minigpt4o.conversation.batch import Batch
from minigpt4o.models.base import LossSum
from minigpt4o.runners.engine import Learned, Recipe, mean_for_backward
from minigpt4o.runners.engine_torch import TorchEngine

HERE = World(0, 1, 0, 1, torch.device("cpu"))


class Two(nn.Module):
    """Two branches, of which a batch without pictures leaves one unused; a batch norm keeps running means."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text, self.image, self.norm = nn.Linear(3, 1), nn.Linear(3, 1), nn.BatchNorm1d(3)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def forward(self, batch: Batch) -> LossSum:
        found = self.text(self.norm(batch.input_ids.float())).square().sum()
        if batch.images is not None:
            found = found + self.image(batch.images).square().sum()
        return LossSum(found, torch.tensor(len(batch)))


class Learn:
    def train_step(self, model: Any, batch: Batch) -> LossSum:
        return model(batch)


def make(restored: Learned | None = None) -> TorchEngine:
    recipe = Recipe(lr=0.1, weight_decay=0.0)
    return TorchEngine(TorchEngine.Config(), model=Two(), task=Learn(), world=HERE, recipe=recipe, restored=restored)


def batch(seed: int, pictures: bool) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 9, (4, 3), generator=draw)
    images = torch.randn(2, 3, generator=draw) if pictures else None
    return Batch(ids, torch.ones_like(ids), ids, images, None)


def step(engine: TorchEngine, seed: int, pictures: bool) -> None:
    engine.accumulate(batch(seed, pictures), 4, last=True)
    assert engine.step(0.1)[1]


def test_a_parameter_that_no_sample_needed_has_a_zero_gradient_and_not_none() -> None:
    engine = make()
    engine.accumulate(batch(0, pictures=False), 4, last=True)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in engine.trained.values())
    assert not bool(engine.trained["image.weight"].grad.any())
    assert bool(engine.trained["text.weight"].grad.any())
    engine.step(0.1)
    assert {int(state["step"]) for state in engine.optimizer.state.values()} == {1}


def test_weights_moments_and_running_means_go_on_in_another_engine() -> None:
    whole, first = make(), make()
    for seed in range(6):
        step(whole, seed, pictures=seed % 2 == 0)
    for seed in range(3):
        step(first, seed, pictures=seed % 2 == 0)
    second = make(restored=first.learned())
    for seed in range(3, 6):
        step(second, seed, pictures=seed % 2 == 0)
    a, b = whole.learned(), second.learned()
    assert a.updates == b.updates == 6
    assert "norm.running_mean" in a.weights
    assert all(torch.equal(a.weights[n], b.weights[n]) for n in a.weights)
    assert all(torch.equal(a.moments[n], b.moments[n]) for n in a.moments)


def test_clipping_bounds_the_update_and_the_norm_is_told_before_it() -> None:
    engine = make()
    engine.accumulate(batch(0, pictures=True), 4, last=True)
    before = torch.sqrt(sum(p.grad.square().sum() for p in engine.trained.values()))
    norm, applied = engine.step(0.1)
    assert applied
    assert norm == float(before)


def test_a_mean_over_all_ranks_and_tokens_poisoned_if_not_finite() -> None:
    total = torch.tensor(6.0, requires_grad=True)
    assert mean_for_backward(total, learned=12, world_size=2).item() == 1.0
    bad = torch.tensor(1.0, requires_grad=True)
    mean_for_backward(bad + float("inf"), learned=1, world_size=1).backward()
    assert bool(bad.grad.isnan())

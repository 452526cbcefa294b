"""Profile compat is MiniGPT-4's loop to the letter; the default is that loop with its faults mended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import bytes_of, lines, stopped_at, train
from torch import Tensor

from minigpt4o.common import distributed
from minigpt4o.common.errors import ConfigError
from minigpt4o.common.registry import registry

Make = Callable[..., Any]
MICRO = 12
RATES = {"init_lr": 0.01, "min_lr": 0.002, "warmup_lr": 0.001, "warmup_steps": 6, "weight_decay": 0.1, "beta2": 0.99}
QUIET = {"valid_splits": [], "save_freq": 100, "batch_size_train": 2, "model": {"lora_dropout": 0.0}}


def steps_of(settings: Any) -> list[dict[str, Tensor]]:
    """The trained weights after each optimizer step of a run."""
    runner = registry.build(settings.run, settings=settings)
    original, found = runner.train_step, []

    def train_step() -> dict[str, Any]:
        row = original()
        found.append({name: tensor.clone() for name, tensor in runner.engine.learned().weights.items()})
        return row

    runner.train_step = train_step
    runner.run()
    return found


def opened(settings: Any) -> tuple[Any, Iterator[Any]]:
    """The same model and the same batches, outside of any runner's loop."""
    runner = registry.build(settings.run, settings=settings)
    runner.start()
    runner.build()
    distributed.finish(runner.world)
    runner.model.train()
    return runner.model, iter(runner.loader)


def adamw(model: Any) -> torch.optim.AdamW:
    decay, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim < 2 or "bias" in name else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": RATES["weight_decay"]}, {"params": plain, "weight_decay": 0}]
    return torch.optim.AdamW(groups, lr=RATES["init_lr"], betas=(0.9, RATES["beta2"]))


def reference(settings: Any, epochs: int, iters: int, accum: int, ranks: int = 1) -> list[dict[str, Tensor]]:
    """The reference's loop as it stands: schedule, backward of the mean, and a step when (i + 1) % accum == 0.

    Of several ranks each takes the next batch, and DistributedDataParallel averages what they found.
    """
    model, batches = opened(settings)
    optimizer, found = adamw(model), []
    start, top, low = RATES["warmup_lr"], RATES["init_lr"], RATES["min_lr"]
    pictures = False
    for epoch in range(epochs):
        for i in range(iters):
            t = epoch * iters + i
            if t < RATES["warmup_steps"]:
                lr = min(top, start + (top - start) * i / max(RATES["warmup_steps"], 1))
            else:
                lr = (top - low) * 0.5 * (1.0 + math.cos(math.pi * t / (epochs * iters))) + low
            for group in optimizer.param_groups:
                group["lr"] = lr
            for _ in range(ranks):
                batch = next(batches)
                loss_sum, count = model(batch)
                (loss_sum / count / ranks).backward()
                pictures = pictures or batch.images is not None
            if (i + 1) % accum == 0:
                for parameter in model.bridges.parameters() if not pictures else ():
                    parameter.grad = None  # the reference does not run its bridge on text
                optimizer.step()
                pictures = False
                optimizer.zero_grad()
                found.append({n: p.detach().clone() for n, p in model.trained_parameters().items()})
    return found


def mended(settings: Any, steps: int, accum: int) -> list[dict[str, Tensor]]:
    """One mean over all tokens of a window, clipped; the schedule counts optimizer steps and never falls back."""
    model, batches = opened(settings)
    optimizer, found = adamw(model), []
    start, top, low = RATES["warmup_lr"], RATES["init_lr"], RATES["min_lr"]
    for step in range(steps):
        if step < RATES["warmup_steps"]:
            lr = start + (top - start) * step / RATES["warmup_steps"]
        else:
            lr = (top - low) * 0.5 * (1.0 + math.cos(math.pi * step / steps)) + low
        for group in optimizer.param_groups:
            group["lr"] = lr
        window = [model(next(batches)) for _ in range(accum)]
        tokens = sum(loss.count for loss in window)
        for loss in window:
            (loss.loss_sum / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.trained_parameters().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append({n: p.detach().clone() for n, p in model.trained_parameters().items()})
    return found


def apart(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> float:
    assert len(ours) == len(theirs)
    assert all(set(a) == set(b) for a, b in zip(ours, theirs, strict=True))
    return max(float((a[n] - b[n]).abs().max()) for a, b in zip(ours, theirs, strict=True) for n in a)


@pytest.mark.parametrize("accum", [1, 2, 3, 5])
@pytest.mark.parametrize("iters", [4, 5])
def test_twelve_micro_iterations_are_those_of_the_reference(make_settings: Make, accum: int, iters: int) -> None:
    epochs = math.ceil(MICRO / iters)
    values = {"max_epoch": epochs, "iters_per_epoch": iters, "accum_grad_iters": accum, "max_steps": None}
    settings = make_settings(profile="compat", **values, **RATES, **QUIET)
    if accum > iters:
        with pytest.raises(ConfigError, match="the optimizer would never step"):
            train(settings)
        return
    theirs = reference(settings, epochs, iters, accum)
    assert len(theirs) == epochs * (iters // accum)
    assert apart(steps_of(settings), theirs) < 1e-6


def test_a_step_without_a_picture_leaves_the_bridge_and_its_moments_alone(make_settings: Make) -> None:
    values = {"max_epoch": 1, "iters_per_epoch": 12, "max_steps": None, **QUIET, "batch_size_train": 1}
    settings = make_settings(profile="compat", **values)
    runner = registry.build(settings.run, settings=settings)
    runner.run()
    learned, (_, batches) = runner.engine.learned(), opened(settings)
    with_picture = sum(next(batches).images is not None for _ in range(12))
    assert 0 < with_picture < 12
    assert learned.updates == 12
    assert learned.steps == {"bridges.image.proj.weight": with_picture, "bridges.image.proj.bias": with_picture}


@pytest.mark.parametrize("accum", [1, 3])
def test_the_default_is_the_same_loop_without_its_faults(make_settings: Make, accum: int) -> None:
    settings = make_settings(max_steps=8, accum_grad_iters=accum, **RATES, **QUIET)
    assert apart(steps_of(settings), mended(settings, 8, accum)) < 1e-6


def test_the_profiles_differ_where_the_faults_are(make_settings: Make) -> None:
    values = {"max_epoch": 2, "iters_per_epoch": 4, "accum_grad_iters": 2, "max_steps": None, **RATES, **QUIET}
    compat, default = (train(make_settings(profile=p, job_name=p, **values)) for p in ("compat", "default"))
    assert len(lines(compat)) == 4  # iters_per_epoch counts micro-batches
    assert len(lines(default)) == 8  # and here optimizer steps
    assert [r["lr"] for r in lines(compat)] != [r["lr"] for r in lines(default)][:4]
    norms = [r["grad_norm"] for r in lines(compat)]
    assert max(norms) > 0


def test_stopped_between_a_leftover_and_its_step_and_continued_equals_never_stopped(make_settings: Make) -> None:
    values = {"profile": "compat", "max_epoch": 4, "iters_per_epoch": 5, "accum_grad_iters": 2, "max_steps": None}
    values |= {"valid_freq": 3, "save_freq": 3}
    peace = train(make_settings(job_name="peace", **values))
    settings = make_settings(job_name="stopped", resume_ckpt_path="auto", **values)
    stopped_at(settings, 2)  # the last step of epoch 0: one micro-batch is left for the first step of epoch 1
    stopped_at(settings, 5)
    run = train(settings)
    assert len(lines(run)) == 8
    assert bytes_of(run) == bytes_of(peace)


def test_every_micro_batch_is_drawn_once_and_in_order(make_settings: Make) -> None:
    values = {"max_epoch": 2, "iters_per_epoch": 5, "accum_grad_iters": 2, "max_steps": None, **QUIET}
    drawn = []
    for profile in ("compat", "default"):
        settings = make_settings(profile=profile, job_name=profile, **values)
        runner = registry.build(settings.run, settings=settings)
        runner.run()
        drawn.append([runner.pace.drawn(step) for step in range(5)])
        assert runner.progress.loader["position"] == 2 * runner.pace.drawn(runner.total_steps - 1) + 2 * 2
    assert drawn[0] == [0, 2, 4, 7, 9]  # epoch 1 begins at micro-batch 5, its first step also takes the one before
    assert drawn[1] == [0, 2, 4, 6, 8]


def test_compat_does_not_clip_unless_it_is_told_to(make_settings: Make) -> None:
    from minigpt4o.runners.setup import clip_of

    config = registry.build(make_settings().run, settings=make_settings()).config
    assert clip_of(config) == 1.0
    config.profile = "compat"
    assert clip_of(config) == 0.0
    config.grad_clip = 0.5
    assert clip_of(config) == 0.5


def test_muon_is_not_the_reference_s(make_settings: Make) -> None:
    with pytest.raises(ConfigError, match=r"run\.optimizer: muon"):
        train(make_settings(profile="compat", optimizer="muon"))


def test_the_plan_tells_what_compat_does(make_settings: Make, tmp_path: Path) -> None:
    values = {"profile": "compat", "max_epoch": 2, "iters_per_epoch": 5, "accum_grad_iters": 2, "max_steps": None}
    settings = make_settings(**values)
    text = registry.build(settings.run, settings=settings).dry_run()
    assert "an epoch is 5 micro-batches; 1 micro-batches of each go into the first step of the next" in text

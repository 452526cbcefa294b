"""A run of MiniGPT-4's own runner goes on in ours from its `checkpoint_{epoch}.pth`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_file import SHAPES, reference_optimizer, write_reference
from test_compat import opened
from tiny_world import lines, train

from minigpt4o.common.errors import CheckpointError
from minigpt4o.common.registry import Part, registry
from minigpt4o.models import official
from minigpt4o.runners import official_file

Make = Callable[..., Any]
RUN = {
    "profile": "compat", "max_epoch": 4, "iters_per_epoch": 5, "accum_grad_iters": 2, "max_steps": None, "beta2": 0.98,
    "weight_decay": 0.05, "valid_splits": [], "save_freq": 100, "model": {"lora_dropout": 0.0}, "warmup_steps": 0,
    "lr_sched": Part("lr_scheduler", "linear_warmup_cosine_lr"),
}  # fmt: skip


def test_weights_moments_and_the_epoch_go_on_and_what_is_lost_is_told(
    make_settings: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint_1.pth"
    saved = write_reference(path, uneven=True)
    settings = make_settings(resume_ckpt_path=str(path), **RUN)
    runner = registry.build(settings.run, settings=settings)
    runner.run()
    assert "the place in the data" in caplog.text
    assert [row["step"] for row in lines(runner.path)] == [5, 6, 7, 8]  # two steps an epoch, epochs 2 and 3
    assert runner.progress.loader["position"] == 19 * 4  # from micro-batch 10 on; nothing steps on the last one

    model, batches = opened(make_settings(**RUN))  # the reference: load, then epochs 2 and 3
    names = official.to_own(SHAPES)
    parameters = {n: model.get_parameter(names[n]) for n in SHAPES}
    for name, parameter in parameters.items():
        parameter.data.copy_(saved["model"][name])
    optimizer = reference_optimizer(parameters)
    optimizer.load_state_dict(saved["optimizer"])
    for _ in range(10):
        next(batches)
    for epoch in (2, 3):
        for i in range(5):
            for group in optimizer.param_groups:
                group["lr"] = runner.schedule.inner.lr(epoch * 5 + i)
            loss_sum, count = model(next(batches))
            (loss_sum / count).backward()
            if (i + 1) % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
    ours = runner.engine.learned()
    assert all(torch.allclose(ours.weights[names[n]], p, atol=1e-6, rtol=0) for n, p in parameters.items())
    assert ours.updates_of(names["llama_proj.bias"]) == 2 + 4  # it had missed one step
    assert ours.updates_of(names[next(iter(SHAPES))]) == 3 + 4


def test_a_run_continued_so_can_be_stopped_and_continued_as_any_other(make_settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_1.pth"
    write_reference(path)
    values = {**RUN, "save_freq": 1, "keep_checkpoints": 9}
    whole = train(make_settings(resume_ckpt_path=str(path), job_name="whole", **values))
    middle = whole / "checkpoints" / "step-000006"
    part = train(make_settings(resume_ckpt_path=str(middle), job_name="part", **values))
    assert lines(part) == lines(whole)


def test_an_epoch_beyond_the_run_s_end_is_refused(make_settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_3.pth"
    write_reference(path, epoch=3)
    with pytest.raises(CheckpointError, match=r"raise run\.max_epoch"):
        train(make_settings(resume_ckpt_path=str(path), **RUN))


def test_a_file_of_another_model_is_refused_by_name(make_settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_1.pth"
    write_reference(path)
    with pytest.raises(CheckpointError, match=r"lora_A.*only in the checkpoint"):
        train(make_settings(resume_ckpt_path=str(path), **{**RUN, "model": {"train": ["bridges"]}}))
    with pytest.raises(CheckpointError, match=r"\(2, 16\) in the checkpoint, \(3, 16\) now"):
        train(make_settings(resume_ckpt_path=str(path), **{**RUN, "model": {"lora_r": 3}}))


def test_zero_keeps_one_count_of_steps_and_refuses_several(tmp_path: Path) -> None:
    from minigpt4o.runners.engine_deepspeed import refuse_uneven

    path = tmp_path / "checkpoint_1.pth"
    write_reference(path, uneven=True)
    with pytest.raises(CheckpointError, match="3 in general and 2 for bridges"):
        refuse_uneven(official_file.read(path)[0])
    write_reference(path)
    refuse_uneven(official_file.read(path)[0])


def test_a_name_held_twice_and_an_optimizer_of_other_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_1.pth"
    found = write_reference(path)
    first = next(iter(SHAPES))
    twice = first.replace("lora_A.weight", "lora_A.default.weight")
    torch.save({**found, "model": {**found["model"], twice: found["model"][first]}}, path)
    with pytest.raises(CheckpointError, match="is held twice"):
        official_file.read(path)
    less = {n: t for n, t in found["model"].items() if n != first}
    torch.save({**found, "model": less}, path)
    with pytest.raises(CheckpointError, match="do not belong together"):
        official_file.read(path)
    swapped = {**less, first: found["model"][first]}  # LoRA's first tensor is now the last of those that decay
    torch.save({**found, "model": swapped}, path)
    with pytest.raises(CheckpointError, match="optimizer state 0 should be that of"):
        official_file.read(path)


def test_adapters_of_a_file_without_optimizer_start_adam_anew(
    make_settings: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint_1.pth"
    found = write_reference(path)
    torch.save({"model": found["model"]}, path)
    learned, _, identity = official_file.read(path)
    assert learned.updates == 0
    assert official_file.epoch_of(identity) == -1
    assert "Adam starts without moments" in caplog.text
    train(make_settings(resume_ckpt_path=str(path), **{**RUN, "max_epoch": 1}))

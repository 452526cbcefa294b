"""One run from start to end: what it writes, what it refuses, what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_world import lines, train, with_run

from minigpt4o.common.errors import CheckpointError, ConfigError
from minigpt4o.common.files import find_checkpoint, verify
from minigpt4o.common.registry import registry
from minigpt4o.runners import data

Make = Callable[..., Any]


def fresh_model(settings: Any) -> Any:
    """The model as the runner builds it."""
    torch.manual_seed(42)
    return registry.build(settings.model)


def test_a_run_is_a_folder_that_tells_everything(make_settings: Make) -> None:
    run = train(make_settings())
    rows = lines(run)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(float.fromhex(row["loss_hex"]) == row["loss"] for row in rows)
    assert set(rows[-1]["val"]) == {"colours"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["world_size"] == 1
    assert set(manifest["data"]) == {"colours", "words"}
    assert "bridges.image.proj.weight" in manifest["trained"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    assert (run / "last").read_text().strip() == (run / "best").read_text().strip() == "step-000006"
    assert json.loads((run / "finished.json").read_text())["step"] == 6
    samples = [json.loads(line) for line in (run / "samples" / "step-000006.jsonl").read_text().splitlines()]
    assert len(samples) == 2
    assert {"prompt", "truth", "answer", "id", "dataset"} <= set(samples[0])


def test_only_what_is_named_learns_and_only_that_is_saved(make_settings: Make) -> None:
    settings = make_settings(max_steps=2)
    runner = registry.build(settings.run, settings=settings)
    runner.run()
    saved = load_file(find_checkpoint(runner.path) / "trained.safetensors")
    assert set(saved) == set(runner.model.trained_parameters())
    assert all("bridges" in name or "lora_" in name for name in saved)
    fresh = fresh_model(settings)
    frozen = {n: p for n, p in fresh.named_parameters() if not p.requires_grad}
    assert all(torch.equal(p, dict(runner.model.named_parameters())[n]) for n, p in frozen.items())
    moments = load_file(find_checkpoint(runner.path) / "optimizer.safetensors")
    assert all(bool(moments[f"exp_avg_sq.{n}"].any()) for n in saved if "bias" not in n)


def test_it_learns(make_settings: Make) -> None:
    model = {"train": ["llm", "bridges"], "lora_r": 0}
    rows = lines(train(make_settings(max_steps=40, save_freq=100, valid_splits=[], model=model)))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


def test_the_first_loss_is_that_of_the_model_on_the_first_batch(make_settings: Make) -> None:
    settings = make_settings(max_steps=1, model={"lora_dropout": 0.0})
    runner = registry.build(settings.run, settings=settings)
    runner.run()
    batch = next(iter(data.open_loader(runner, None)))
    model = fresh_model(settings).eval()
    found = model(batch)
    assert lines(Path(runner.path))[0]["loss"] == pytest.approx(float(found.loss_sum.detach() / found.count), rel=1e-5)


def test_micro_batches_of_unequal_length_count_every_token_once(make_settings: Make) -> None:
    whole = lines(train(make_settings(job_name="whole", model={"lora_dropout": 0.0})))
    parts = lines(
        train(make_settings(job_name="parts", batch_size_train=1, accum_grad_iters=4, model={"lora_dropout": 0.0}))
    )
    assert [row["ids"] for row in whole] == [row["ids"] for row in parts]
    assert [row["learned"] for row in whole] == [row["learned"] for row in parts]
    for a, b in zip(whole, parts, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_length_follows_max_steps_or_epochs_of_iters_or_of_all_samples(make_settings: Make) -> None:
    def steps(**values: Any) -> tuple[int, int]:
        settings = make_settings(**values)
        runner = registry.build(settings.run, settings=settings)
        runner.dry_run()
        return runner.total_steps, runner.epoch_steps

    assert steps(max_steps=7, iters_per_epoch=3) == (7, 3)
    assert steps(max_steps=None, max_epoch=2, iters_per_epoch=5) == (10, 5)
    total, epoch = steps(max_steps=None, max_epoch=2, iters_per_epoch=None)
    assert (total, epoch) == (36, 18)  # 24 words at one place in three: 72 samples in batches of 4


def test_workers_change_nothing_but_the_speed(make_settings: Make) -> None:
    none = train(make_settings(job_name="none"))
    two = train(make_settings(job_name="two", num_workers=2))
    assert (none / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()


def test_a_dry_run_takes_a_step_and_writes_nothing(make_settings: Make, tmp_path: Path) -> None:
    settings = make_settings()
    text = registry.build(settings.run, settings=settings).dry_run()
    assert not (tmp_path / "output").exists()
    for word in ("bridges.image", "frozen", "colours: 24 samples", "steps: 6", "MiB", "one step was taken: loss 6."):
        assert word in text


def test_a_second_trainer_on_the_same_folder_is_refused(make_settings: Make) -> None:
    settings = make_settings(run_id="one")
    runner = registry.build(settings.run, settings=settings)
    step = runner.train_step

    def meanwhile() -> dict[str, Any]:
        other = with_run(settings, resume_ckpt_path="auto")
        with pytest.raises(ConfigError, match="is being trained by process"):
            registry.build(other.run, settings=other).run()
        return step()

    runner.train_step = meanwhile
    runner.run()
    with pytest.raises(ConfigError, match="exists"):
        train(settings)


def test_a_resume_path_that_does_not_exist_is_refused_before_anything_is_built(make_settings: Make) -> None:
    settings = make_settings(resume_ckpt_path="/no/such/folder", model={"encoders": {}})
    with pytest.raises(CheckpointError, match="does not exist"):
        train(settings)


def test_an_output_folder_that_cannot_be_used_is_refused_at_once(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.output_dir"):
        train(make_settings(output_dir=str(tmp_path / "file")))


def test_values_that_make_no_sense_are_all_named(make_settings: Make) -> None:
    with pytest.raises(ConfigError, match=r"run\.max_steps: 0, run\.accum_grad_iters: -1"):
        train(make_settings(max_steps=0, accum_grad_iters=-1))


def test_the_trained_language_model_is_in_the_last_checkpoint_in_its_own_format(make_settings: Make) -> None:
    settings = make_settings(max_steps=3, model={"train": ["llm"], "lora_r": 0})
    run = train(settings)
    step = find_checkpoint(run)
    assert verify(step) == []
    assert (step / "llm" / "config.json").is_file()
    assert not (run / "checkpoints" / "step-000002" / "llm").exists()
    llm = settings.model["llm"]
    again = registry.build(type(llm)("llm", "causal_lm", {"path": str(run)}))
    saved = load_file(step / "trained.safetensors")
    assert all(torch.equal(p, saved[f"llm.{n}"]) for n, p in again.named_parameters())


def test_a_learning_rate_of_zero_moves_nothing(make_settings: Make) -> None:
    settings = make_settings(init_lr=0.0, warmup_lr=0.0, weight_decay=0.5)
    saved = load_file(find_checkpoint(train(settings)) / "trained.safetensors")
    fresh = fresh_model(settings).trained_parameters()
    assert all(torch.equal(saved[name], p) for name, p in fresh.items())

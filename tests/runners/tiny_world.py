"""A tiny real world for the tests of the runner: pictures on disk, a trained tokenizer, a small aligned model."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

TENSORS = ("trained.safetensors", "optimizer.safetensors")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_world(folder: Path) -> Path:
    """Pictures of one colour, their captions (two of three have a picture), and a tokenizer."""
    from PIL import Image

    from minigpt4o.models.llms.tokenizer import train_tokenizer

    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    rows, words = [], []
    for i in range(24):
        name = list(COLOURS)[i % 4]
        text = f"a {name} square " + "and one more " * (i % 3)
        rows.append({"id": f"s{i}", "image": f"{name}.png", "caption": text.strip()})
        words.append({"id": f"w{i}", "caption": f"one {name} word {i}"})
    (folder / "words.json").write_text(json.dumps(words))
    (folder / "train.json").write_text(json.dumps(rows))
    (folder / "val.json").write_text(json.dumps(rows[:6]))
    (folder / "text.txt").write_text("\n".join(r["caption"] for r in rows) * 20)
    train_tokenizer([folder / "text.txt"], folder / "tokenizer", vocab_size=300)
    return folder


def tiny_settings(world: Path, output: Path, model: dict[str, Any] | None = None, **run: Any) -> Any:
    from minigpt4o.common.nodes import DatasetSpec
    from minigpt4o.common.registry import Part
    from minigpt4o.common.settings import Settings

    llm = {
        "tokenizer": str(world / "tokenizer"),
        "options": {**LLAMA, "initializer_range": 0.2, "attention_dropout": 0.0},
    }
    values = {
        "llm": Part("llm", "causal_lm", llm),
        "encoders": {
            "image": Part(
                "encoder", "timm_vit", {"image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "heads": 2}
            )
        },
        "bridges": {"image": Part("bridge", "linear", {})},
        "lora_r": 2,
        "lora_dropout": 0.1,
        "train": ["bridges", "lora"],
        "max_txt_len": 32,
        **(model or {}),
    }
    processor = {
        "train": Part("processor", "blip2_image_train", {"image_size": 8}),
        "eval": Part("processor", "blip2_image_eval", {"image_size": 8}),
    }
    files = {"train": str(world / "train.json"), "val": str(world / "val.json")}
    builder = Part("builder", "pairs", {"annotations": files, "media_root": str(world)})
    words = {"annotations": {"train": str(world / "words.json")}, "fields": {"text": "caption"}}
    run = {
        "task": Part("task", "image_text_pretrain"),
        "device": "cpu",
        "threads": 1,
        "max_steps": 6,
        "batch_size_train": 4,
        "batch_size_eval": 3,
        "save_freq": 2,
        "valid_batches": 2,
        "probe_size": 2,
        "probe_tokens": 3,
        "init_lr": 0.01,
        "warmup_steps": 2,
        "warmup_lr": 0.001,
        "trackers": ["jsonl"],
        "output_dir": str(output),
        "job_name": "job",
        **run,
    }
    tree = {
        "model": {"arch": "aligned"},
        "datasets": {"colours": {"builder": "pairs"}},
        "run": {"runner": "runner_base"},
    }
    data = {
        "colours": DatasetSpec(name="colours", builder=builder, vis_processor=processor, sample_ratio=2),
        "words": DatasetSpec(name="words", builder=Part("builder", "pairs", words)),
    }
    return Settings(Part("model", "aligned", values), data, Part("runner", "runner_base", run), tree=tree)


def train(settings: Any) -> Path:
    """Run to the end; returns the run folder."""
    from minigpt4o.common.registry import registry

    runner = registry.build(settings.run, settings=settings)
    runner.run()
    return Path(runner.path)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def with_run(settings: Any, **values: Any) -> Any:
    """The same settings with other values in the run node."""
    return replace(settings, run=replace(settings.run, values={**settings.run.values, **values}))


def bytes_of(run: Path) -> list[bytes]:
    """What has to be equal: the step log, the tensors, the probe answers."""
    from minigpt4o.common.files import find_checkpoint

    step = find_checkpoint(run)
    samples = [p.read_bytes() for p in sorted((run / "samples").iterdir())]
    return [(run / "metrics.jsonl").read_bytes(), *((step / name).read_bytes() for name in TENSORS), *samples]


def stopped_at(settings: Any, step: int, number: int = signal.SIGTERM) -> Any:
    """Start a run and send this process a signal in the middle of a step."""
    import pytest

    from minigpt4o.common.errors import Preempted
    from minigpt4o.common.registry import registry

    runner = registry.build(settings.run, settings=settings)
    original = runner.train_step

    def train_step() -> dict[str, Any]:
        if runner.progress.step == step - 1:
            os.kill(os.getpid(), number)
        return original()

    runner.train_step = train_step
    with pytest.raises(Preempted) as stop:
        runner.run()
    assert stop.value.exit_code == 75
    return runner

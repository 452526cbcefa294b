"""Models that are exported in tests: MiniGPT-4 with a Q-Former, MiniGPT-v2 with adapters, Minigpt4o; all tiny."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import published
import torch
import yaml

from minigpt4o.cli import main

PICTURES = {"vis_processor": {"name": "blip2_image_eval", "image_size": 28}, "max_new_tokens": 8}


def png(side: int = 20) -> bytes:
    """A red picture."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, "PNG")
    return file.getvalue()


def wav(seconds: float = 0.2) -> bytes:
    """A tone."""
    import numpy as np
    import soundfile

    file = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(16000 * seconds)) / 16000)
    soundfile.write(file, wave.astype("float32"), 16000, format="WAV")
    return file.getvalue()


def export(source: str, out: Path, *flags: str, options: list[str] | None = None) -> str:
    """Run the command; returns what it told."""
    torch.manual_seed(0)  # what no file gives is drawn
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        code = main(["export", source, str(out), *flags, *(["--options", *options] if options else [])])
    assert code == 0, told.getvalue()
    return told.getvalue()


def settings_file(folder: Path, model: dict[str, Any], run: dict[str, Any] | None = None, name: str = "model") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"model": model, "run": {"runner": "chat", **(run or {})}}), encoding="utf-8")
    return file


def qformer_node(words: Path) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {**sizes, "initializer_range": 0.3, "max_position_embeddings": 256}
    return {
        "arch": "minigpt4",
        "model_type": "pretrain_vicuna0",
        "llm": {
            "name": "causal_lm",
            "path": "",
            "tokenizer": str(words),
            "pad_token": "",
            "options": options,
            "seed": 3,
        },
        "encoders": {"image": {"image_size": 28, "width": 16, "depth": 1, "heads": 2, "weights": ""}},
        "bridges": {"image": {"queries": 4, "width": 16, "depth": 2, "heads": 2, "ffn": 24, "weights": ""}},
        "feature_norm_weights": "",
        "precision": "fp32",
    }


def minigpt4(folder: Path, words: Path) -> tuple[Path, Path]:
    """(.pth of a whole MiniGPT-4 with Q-Former, its YAML); the picture tower's features are of a usual size."""
    model = published.drawn("minigpt4", "pretrain_vicuna0", published.TINY_QFORMER, words)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "pos_embed" in name or "patch_embed" in name:
            torch.nn.init.normal_(parameter, std=2.0)
        elif name.endswith(("q_bias", "v_bias")):
            torch.nn.init.normal_(parameter, std=0.5)
    torch.save({"model": published.official_tensors(model)}, folder / "whole.pth")
    return folder / "whole.pth", settings_file(folder, qformer_node(words), PICTURES, "minigpt4")


def v2_file(folder: Path, weights: Path) -> Path:
    """MiniGPT-v2 of the published files, with its adapters."""
    node = {"arch": "minigpt_v2", "model_type": "pretrain", "ckpt": str(weights / "minigptv2_checkpoint.pth")}
    node |= {"llm": {"path": str(weights / "Llama-2-7b-chat-hf")}, "template": "minigpt_v2"}
    node |= {"encoders": {"image": {"weights": str(weights / "eva_vit_g.pth")}}}
    return settings_file(folder, node, PICTURES, "v2")


def native_file(folder: Path) -> Path:
    """A Minigpt4o drawn at random."""
    place = Path(__file__).parents[1] / "models" / "tiny_native.py"
    spec = importlib.util.spec_from_file_location("tiny_native", place)
    assert spec is not None and spec.loader is not None
    tiny: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    (folder / "words").mkdir()
    words = tiny.make_tokenizer(folder / "words")
    node = {"arch": "minigpt4o", "options": tiny.OPTIONS, "tokenizer": str(words), "image_size": tiny.SIDE}
    run = {
        "vis_processor": {"name": "blip2_image_eval", "image_size": tiny.SIDE, "mean": [0.0] * 3, "std": [1.0] * 3},
        "audio_processor": {"name": "minigpt4o_audio", "feature_size": tiny.BINS, "seconds": 0.27},
    }
    return settings_file(folder, {**node, "precision": "fp32", "seed": 1}, run, "native")
